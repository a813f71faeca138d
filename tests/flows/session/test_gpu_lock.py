"""One stage at a time on each GPU of a machine, with fake devices and real processes, some of which are killed."""

import json
import os
import subprocess
import sys
import types
from contextlib import suppress
from dataclasses import replace

import pytest

from flows.session import gpu_lock, joining, reruns
from flows.session.display import Display
from flows.session.recording import recording
from flows.session.session import Session
from pipeline.engine.elastic import SPEC
from pipeline.engine.execute import Outcome
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from storage.errors import Interrupted
from tests.flows.conftest import ROOT, make_all

GPUS = {"uuid-a": "GPU 0", "uuid-b": "GPU 1"}
# A process of another store that holds the GPUs which its arguments name until its input ends.
HOLDER = """
import sys
from flows.session import gpu_lock
from flows.session.session import Session
from pipeline.recipe.load import load
session = Session.open(load(sys.argv[1]))
with gpu_lock._locked({uuid: uuid for uuid in sys.argv[2:]}, session.nodes["student"], session):
    print("held", flush=True)
    sys.stdin.read()
"""


class Notes(Display):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(autouse=True)
def machine(home, tmp_path, monkeypatch):
    """A machine with two GPUs and no locks."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(gpu_lock, "devices", lambda compute, parallel: GPUS if parallel else {"uuid-a": "GPU 0"})
    monkeypatch.setattr(gpu_lock, "POLL", 0.02)


@pytest.fixture
def hold(tiny, tmp_path):
    """Start a process of another store that holds GPUs."""
    started = []

    def start(*uuids):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tiny, *uuids],
            cwd=ROOT,
            env=os.environ | {"FLOWCTL_HOME": str(tmp_path / "another")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def session(tiny):
    session = Session.open(load(tiny), display=Notes())
    session.store.prepare()
    return session


def free(*uuids):
    """Which of the GPUs nobody holds."""
    locks = {uuid: gpu_lock._try(gpu_lock.lock_path(uuid)) for uuid in uuids or GPUS}
    for lock in locks.values():
        with suppress(AttributeError):
            lock.close()
    return [uuid for uuid, lock in locks.items() if lock]


def work(session, then=lambda: None, stage="teacher"):
    def done(waiting):
        then()
        return Outcome("run", None, 0.0)

    return gpu_lock.with_gpu_lock(session.nodes[stage], session, done)


def test_a_stage_holds_all_its_gpus_and_frees_them_however_it_ends(session):
    seen = []
    work(session, lambda: seen.extend(free()))
    assert seen == [] and free() == list(GPUS)

    def fails():
        raise TimeoutError("a network disk")

    with pytest.raises(TimeoutError):
        work(session, fails)
    assert free() == list(GPUS)


@pytest.mark.parametrize(("stage", "left"), [("data", list(GPUS)), ("reference", ["uuid-b"]), ("evaluation", [])])
def test_a_stage_holds_the_gpus_that_it_computes_on(session, stage, left):
    seen = []
    work(session, lambda: seen.extend(free()), stage)
    assert seen == left


def test_a_gpu_is_free_as_soon_as_its_holder_is_killed_and_all_see_who_waits(session, hold, flowctl, monkeypatch):
    holder = hold("uuid-b")
    shown = []
    try_lock = gpu_lock._try

    def looked(path):
        lock = try_lock(path)
        if lock is None and not shown:
            shown.append("")  # the first look finds the holder; the next one is within the wait
        elif lock is None and len(shown) == 1:
            shown.append(json.loads(flowctl("status", "--json").stdout))
            shown.append(flowctl("status").stdout)
            holder.kill()
            holder.wait()
        return lock

    monkeypatch.setattr(gpu_lock, "_try", looked)
    with recording(session, plan(session.nodes, session.store)):
        assert work(session).action == "run"
        assert session.record.facts["waiting"] is None
    (item,) = shown[1]
    assert (item["stage"], item["state"], item["recipe"], item["pid"]) == ("teacher", "waiting", "tiny", os.getpid())
    assert item["waits_for"].startswith(f"GPU 1, used by process {holder.pid} on ")
    assert "student of tiny" in item["waits_for"] and item["waits_for"] in shown[2]
    assert session.display.notes == [f"teacher: waiting for {item['waits_for']}"]
    assert free() == list(GPUS)


def test_processes_that_need_the_same_gpus_take_turns_in_whatever_order_they_name_them(tiny, tmp_path):
    """Half of these real processes name the GPUs the other way round: none waits for ever."""
    script = HOLDER.replace('print("held", flush=True)', "pass").replace("sys.stdin.read()", "pass")
    processes = [
        subprocess.Popen([sys.executable, "-c", script, tiny, *order], cwd=ROOT, env=os.environ.copy())
        for order in [["uuid-a", "uuid-b"], ["uuid-b", "uuid-a"]] * 2
    ]
    assert [process.wait(120) for process in processes] == [0] * 4


def test_a_stop_signal_ends_the_wait(session, hold, monkeypatch):
    hold("uuid-a")
    monkeypatch.setattr(Notes, "note", lambda display, text: session.stop.request("Ctrl-C"))
    with pytest.raises(Interrupted):
        work(session)
    assert free() == ["uuid-b"]


def test_the_gpus_are_free_while_another_process_runs_the_stage(session, monkeypatch):
    events, holders = [], ["process 5"]
    monkeypatch.setattr(gpu_lock, "wait_for", lambda holder, node, session: events.append((holder, free())))

    def done(waiting):
        if holders:
            waiting(holders.pop())
        events.append(("works", free()))
        return Outcome("run", None, 0.0)

    gpu_lock.with_gpu_lock(session.nodes["teacher"], session, done)
    assert events == [("process 5", list(GPUS)), ("works", [])]


def test_no_gpu_is_held_for_what_is_reused_fetched_or_never_on_one(tiny):
    session, seen = make_all(load(tiny)), []

    def call(stage, **options):
        def done(waiting):
            seen.append(free())
            return Outcome("run", None, 0.0)

        gpu_lock.with_gpu_lock(session.nodes[stage], session, done, **options)

    call("teacher")
    reruns.request([replace(session, force=["teacher", "data"])])
    call("teacher"), call("teacher", fetched=True), call("data")
    assert seen == [list(GPUS), [], list(GPUS), list(GPUS)]


def test_a_lock_that_was_deleted_or_replaced_by_a_link_protects_nothing_else(tmp_path):
    path = gpu_lock.lock_path("uuid-a")
    lock = gpu_lock._try(path)
    assert lock is not None and gpu_lock._try(path) is None
    lock.close()
    path.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OSError):
        gpu_lock._try(path)
    assert victim.read_text() == "precious"


def test_where_nothing_else_can_be_written_the_lock_is_in_the_store(home, monkeypatch):
    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(gpu_lock.tempfile, "gettempdir", nowhere)
    assert gpu_lock.lock_path("uuid-a").parent == home


def test_locks_can_be_shared_by_all_users_of_the_machine():
    before = os.umask(0o077)
    try:
        gpu_lock._try(gpu_lock.lock_path("uuid-a")).close()
    finally:
        os.umask(before)
    assert gpu_lock.lock_path("uuid-a").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    ("compute", "gpus"),
    [
        (Compute(), {"u0": "GPU 0"}),
        (Compute(device="cuda:1"), {"u1": "GPU 1"}),
        (Compute(nproc=2), {"u0": "GPU 0", "u1": "GPU 1"}),
        (Compute(device="cpu"), {}),
    ],
)
def test_a_stage_uses_the_devices_of_its_processes(monkeypatch, compute, gpus):
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: types.SimpleNamespace(uuid=f"u{index}"))
    assert gpu_lock.devices(compute, parallel=True) == gpus
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_lock.devices(compute, parallel=True) == {}


@pytest.fixture
def further(tiny):
    """A further machine of a run whose first machine has begun the teacher. (session, its request to join)"""
    session = Session.open(
        load(tiny, ["compute={nnodes: 2, node_rank: 1, rendezvous: 'first:29400'}"]), display=Notes()
    )
    session = replace(session, nodes={"teacher": session.nodes["teacher"]})
    asked = session.store.work("teacher", session.nodes["teacher"].fingerprint) / SPEC
    asked.parent.mkdir(parents=True)
    asked.touch()
    return session, asked


def test_a_further_machine_holds_its_gpus_while_its_ranks_run(further, monkeypatch):
    """The stage's own lock is the first machine's, and the first one's GPUs are others."""
    session, _ = further
    seen = []

    def ranks(*_):
        seen.append(free())
        session.stop.request("SIGTERM")

    monkeypatch.setattr(joining, "_run_ranks", ranks)
    with pytest.raises(Interrupted):
        joining.join(session)
    assert seen == [[]] and free() == list(GPUS)


def test_a_further_machine_joins_no_stage_that_ended_while_its_gpus_were_busy(further, hold, monkeypatch):
    session, asked = further
    holder, joined = hold("uuid-b"), []

    def ended(self, text):
        asked.unlink()
        holder.communicate()
        monkeypatch.setattr(joining.time, "sleep", lambda _: session.stop.request("SIGTERM"))

    monkeypatch.setattr(Notes, "note", ended)
    monkeypatch.setattr(joining, "_run_ranks", lambda *_: joined.append(1))
    with pytest.raises(Interrupted):
        joining.join(session)
    assert not joined and free() == list(GPUS)
