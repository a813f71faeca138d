"""One machine at a time uses the database of the embedded servers; the processes of one machine share it."""

import pytest

from flows.orchestration import database_lock
from flows.orchestration.database_lock import claim, turn
from flows.orchestration.server import claim_database
from storage.errors import BusyError
from tests.flows.faults import fault


@pytest.fixture
def on(monkeypatch):
    """What the block does, it does on the machine of this name."""

    def move(name):
        monkeypatch.setattr(database_lock, "machine", lambda: name)
        monkeypatch.setattr(database_lock.socket, "gethostname", lambda: name)

    return move


def test_a_second_machine_is_refused_until_the_last_server_of_the_first_has_ended(tmp_path, on):
    on("first")
    servers = [claim_database(tmp_path) for _ in range(2)]
    for server in servers:
        on("second")
        with pytest.raises(BusyError) as raised:
            claim_database(tmp_path)
        assert "first" in str(raised.value) and raised.value.retryable
        server.close()
    second = claim_database(tmp_path)
    assert [path.name for path in tmp_path.glob("machine-*")] == ["machine-second.lock"]
    on("first")
    with pytest.raises(BusyError):
        claim_database(tmp_path)
    second.close()


def test_a_database_in_use_elsewhere_is_not_set_aside(tmp_path, on):
    on("first")
    server = claim_database(tmp_path)
    (tmp_path / "prefect.db").write_bytes(b"half of what the first machine writes, " * 100)
    on("second")
    with pytest.raises(BusyError):
        claim_database(tmp_path)
    assert (tmp_path / "prefect.db").exists()
    server.close()


def test_containers_of_one_kernel_are_one_machine(monkeypatch):
    here = database_lock.machine()
    monkeypatch.setattr(database_lock.socket, "gethostname", lambda: "another container")
    assert database_lock.machine() == here


def test_run_and_ui_say_so_before_anything_starts(program, flowctl, home, tiny, monkeypatch):
    monkeypatch.setattr("flows.session.settings.configure", lambda: None)
    monkeypatch.setattr("flows.session.settings.confine", lambda home: home.mkdir(parents=True, exist_ok=True))
    folder = home / "prefect"
    folder.mkdir(parents=True)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(database_lock, "machine", lambda: "first")
        with turn(folder):
            server = claim(folder)
    assert type(fault(flowctl("ui"))) is BusyError
    process = program("run", tiny)
    _, said = process.communicate()
    assert process.returncode == 1 and "PREFECT_API_URL" in said and not list((home / "runs").glob("*"))
    server.close()


def test_a_server_holds_the_claim_of_its_machine(prefect_server, tmp_path_factory, on):
    """Of the server itself, not of the process that started it."""
    [folder] = {path.resolve() for path in tmp_path_factory.getbasetemp().glob("server*/prefect")}
    on("second")
    with turn(folder), pytest.raises(BusyError):
        claim(folder)
