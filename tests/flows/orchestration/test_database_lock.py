"""A database of the embedded servers is one machine's at a time; the processes of one machine share it."""

import pytest

from flows.orchestration import database_lock
from flows.orchestration.database_lock import claimed
from flows.orchestration.server import claim_database


@pytest.fixture
def on(monkeypatch):
    """From now on this is the machine of this name."""

    def move(name, host=None):
        monkeypatch.setattr(database_lock, "machine", lambda: name)
        monkeypatch.setattr(database_lock.socket, "gethostname", lambda: host or name)

    return move


def test_a_second_machine_has_another_database_until_the_last_server_of_the_first_has_ended(tmp_path, on, capsys):
    on("first")
    servers = [claim_database(tmp_path) for _ in range(2)]
    assert [folder for folder, _ in servers] == [tmp_path] * 2 and not capsys.readouterr().err
    on("second")
    for _, lock in servers:
        apart, other = claim_database(tmp_path)
        assert apart == tmp_path / "on-second" and str(apart) in capsys.readouterr().err
        other.close()
        lock.close()
    folder, second = claim_database(tmp_path)
    assert folder == tmp_path
    assert [path.name for path in tmp_path.glob("machine-*")] == ["machine-second.lock"]
    on("first")
    assert claim_database(tmp_path)[0] == tmp_path / "on-first"
    second.close()


def test_machines_of_one_name_are_apart_too(tmp_path, on):
    held = []
    for number in range(3):
        on(f"kernel {number}", host="node/1")
        held.append(claim_database(tmp_path))
    assert [str(folder.relative_to(tmp_path)) for folder, _ in held] == [".", "on-node-1", "on-node-1-2"]


def test_a_database_in_use_elsewhere_is_not_set_aside(tmp_path, on):
    on("first")
    _, server = claim_database(tmp_path)
    (tmp_path / "prefect.db").write_bytes(b"half of what the first machine writes, " * 100)
    on("second")
    claim_database(tmp_path)
    assert (tmp_path / "prefect.db").exists()
    server.close()


def test_containers_of_one_kernel_are_one_machine(monkeypatch):
    here = database_lock.machine()
    monkeypatch.setattr(database_lock.socket, "gethostname", lambda: "another container")
    assert database_lock.machine() == here


@pytest.mark.slow
def test_a_run_next_to_another_machine_s_server_ends_well(program, home, tiny, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(database_lock, "machine", lambda: "first")
        with claimed(home / "prefect") as (_, server):
            pass
    process = program("run", tiny)
    _, said = process.communicate()
    assert process.returncode == 0, said
    [folder] = (home / "prefect").glob("on-*")
    assert (folder / "prefect.db").exists() and not (home / "prefect" / "prefect.db").exists()
    server.close()


@pytest.mark.slow
def test_a_server_holds_the_claim_of_its_machine(prefect_server, tmp_path_factory, on):
    """Of the server itself, not of the process that started it."""
    [folder] = {path.resolve() for path in tmp_path_factory.getbasetemp().glob("server*/prefect")}
    on("second")
    with claimed(folder) as (elsewhere, lock):
        assert elsewhere != folder
    lock.close()
