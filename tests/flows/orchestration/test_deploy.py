"""`deploy`, and what a flow hears from outside: cancelled, paused, a GPU that is taken, a server that is gone."""

import json
import threading
import time
import types
from contextlib import contextmanager
from uuid import uuid4

import pytest

from flows.orchestration import server_watch
from flows.session.display import Lines
from flows.session.interrupts import graceful_shutdown
from flows.session.runs import RunRecord, records
from flows.session.session import Session
from pipeline.engine.execute import Outcome
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import StopSignal
from storage.errors import Interrupted
from tests.flows.conftest import make_all

pytestmark = pytest.mark.usefixtures("home")
UNTIL = ("--until", "bank")


@pytest.fixture
def served(prefect_server, monkeypatch):
    """Commands find the tests' server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)  # done once, by the fixture


@pytest.fixture
def client(served):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def _last_run(client, home):
    (*_, facts) = records(home)
    return client.read_flow_run(facts["flow_run"])


# -- flowctl deploy ------------------------------------------------------------------------------------------------


def test_deploy_needs_a_server(flowctl, tiny, monkeypatch):
    result = flowctl("deploy", tiny)
    assert result.exit_code == 2 and "flowctl ui" in result.stderr and result.stderr.count("\n") == 1
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    result = flowctl("deploy", tiny)
    assert result.exit_code == 1 and "No Prefect server answers at PREFECT_API_URL=http://127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nfm-digts",), "Did you mean 'nfm-digits'?"),
        (("{tiny}", "--set", "sede=1"), "Did you mean 'seed'?"),
        (("{tiny}", "{tiny}"), "name of its own"),
    ],
)
def test_deploy_takes_sound_recipes(flowctl, tiny, words, said):
    result = flowctl("deploy", *(word.format(tiny=tiny) for word in words))
    assert result.exit_code == 2 and said in result.stderr


def test_a_deployment_is_made_and_made_anew(flowctl, client, home, tiny):
    result = flowctl("deploy", tiny, "--pool", "shed", "--schedule", "0 2 * * *", "--set", "seed=7")
    assert result.exit_code == 0, result.output
    assert "flowctl/tiny" in result.stdout and "prefect worker start --pool shed" in result.stdout
    assert client.read_work_pool("shed").type == "process"
    assert client.read_global_concurrency_limit_by_name("gpu").limit >= 1
    made = client.read_deployment_by_name("flowctl/tiny")
    assert made.parameters == {"recipe": load(tiny, ["seed=7"]).model_dump(mode="json"), "force": None, "until": None}
    assert (made.entrypoint, made.work_pool_name) == ("flows.orchestration.pipeline_flow.pipeline", "shed")
    assert made.job_variables["env"]["FLOWCTL_HOME"] == str(home) and made.job_variables["stream_output"] is False
    assert [(item.schedule.cron, item.schedule.timezone, item.active) for item in made.schedules] == [
        ("0 2 * * *", "UTC", True)
    ]
    assert flowctl("deploy", tiny).exit_code == 0
    again = client.read_deployment_by_name("flowctl/tiny")
    assert (again.id, again.work_pool_name, again.schedules) == (made.id, "flowctl", [])
    assert again.parameters["recipe"]["seed"] == 0


def test_deploy_refuses_a_schedule_that_is_none_and_a_pool_of_another_type(flowctl, client, tiny):
    from prefect.client.schemas.actions import WorkPoolCreate

    result = flowctl("deploy", tiny, "--schedule", "often")
    assert result.exit_code == 2 and "--schedule is a cron line" in result.stderr
    client.create_work_pool(WorkPoolCreate(name="clouds", type="kubernetes"))
    result = flowctl("deploy", tiny, "--pool", "clouds")
    assert result.exit_code == 2 and "clouds, of type kubernetes" in result.stderr


def test_a_relative_path_still_leads_there_from_a_worker(served, tiny, tmp_path, monkeypatch):
    from flows.orchestration.deployments import _parameters

    monkeypatch.chdir(tmp_path)
    recipe = load(tiny, ["data.source=images", "data.path=photos", "reference.extractor=pixels"])
    assert _parameters(recipe)["recipe"]["data"]["path"] == str(tmp_path / "photos")


# -- a flow run without a session, as a worker starts it -------------------------------------------------------------


@pytest.fixture
def in_worker(served, tiny):
    """Run the flow as a worker would; its final state."""
    from flows.orchestration.pipeline_flow import pipeline

    def run(**changes):
        return pipeline(load(tiny).model_dump(mode="json") | changes, until="bank", return_state=True)

    return run


def test_a_worker_needs_no_session(in_worker, client, home):
    state = in_worker()
    assert (state.name, state.message) == ("Completed", "3 run")
    (facts,) = records(home)
    assert facts["flow_run"] == str(state.state_details.flow_run_id) and facts["outcome"] == "done"
    assert in_worker().message == "3 reused"


def test_a_worker_is_told_what_is_wrong_with_a_recipe(in_worker, home):
    state = in_worker(sede=1)
    assert state.is_failed() and "Did you mean 'seed'?" in state.message
    assert not (home / "artifacts").exists() or not list((home / "artifacts").iterdir())


# -- cancelled and paused ------------------------------------------------------------------------------------------


def _asks(client, home, state):
    """Set the state of the flow run, as the UI does, once its couplings are under way."""

    def ask():
        deadline = time.monotonic() + 60
        while not list((home / "work" / "bank").glob("*/saved.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        (*_, facts) = records(home)
        client.set_flow_run_state(facts["flow_run"], state, force=True)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize("wish", ["cancelled", "paused"])
def test_a_wish_in_the_ui_is_heard_by_a_running_stage(flowctl, client, home, tiny, monkeypatch, wish):
    from prefect.states import Cancelling, Paused

    monkeypatch.setattr("flows.orchestration.server_watch.EVERY", 0.1)
    monkeypatch.setenv("FAKES", json.dumps({"bank": {"steps": 400, "seconds": 0.1}}))
    thread = _asks(client, home, Cancelling() if wish == "cancelled" else Paused(timeout_seconds=300))
    result = flowctl("run", tiny, *UNTIL)
    thread.join()
    assert result.exit_code == 1
    assert f"{wish} in Prefect: saving at the next possible point" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: Stopped in stage bank ({wish} in Prefect)")
    assert _last_run(client, home).state.name == "Cancelled"  # nobody can resume what no deployment describes
    monkeypatch.setenv("FAKES", "{}")
    assert "bank: resumed" in flowctl("run", tiny, *UNTIL).stderr


def test_a_stop_between_stages_is_heard_before_the_next(flowctl, served, tiny, monkeypatch):
    def finished(session):
        session.stop.request("Ctrl-C")
        return []

    monkeypatch.setattr("flows.orchestration.gpus._needed", lambda node, session, force: finished(session))
    result = flowctl("run", tiny, *UNTIL)
    assert result.exit_code == 1 and "data: run" not in result.stderr and "bank" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "named", "ends"),
    [
        ("CANCELLING", "Cancelling", None),
        ("CANCELLED", "Cancelled", None),
        ("PAUSED", "Suspended", "Pause"),
        ("RUNNING", "Running", "Abort"),
    ],
)
def test_an_interrupted_run_ends_as_it_was_asked_to(served, monkeypatch, kind, named, ends):
    from prefect.client.schemas import State
    from prefect.client.schemas.objects import StateType

    from flows.orchestration import deployed

    changed = []

    class Client:
        def read_flow_run(self, id):
            return types.SimpleNamespace(id=id, state=State(type=StateType[kind], name=named))

        def set_flow_run_state(self, id, state, force):
            changed.append(state)

    @contextmanager
    def get_client(sync_client):
        yield Client()

    monkeypatch.setattr(deployed, "get_client", get_client)
    outcome = None
    try:
        deployed.hand_back(uuid4(), "Stopped (SIGTERM)")
    except BaseException as error:
        outcome = type(error).__name__
    assert outcome == ends
    assert [state.name for state in changed] == (["AwaitingRetry"] if ends == "Abort" else [])


def test_what_counts_as_a_wish(served):
    from prefect import states

    from flows.orchestration.server_watch import wish

    assert wish(states.Cancelling()) == wish(states.Cancelled()) == "cancelled in Prefect"
    assert wish(states.Suspended(timeout_seconds=5)) == wish(states.Paused(timeout_seconds=5)) == "paused in Prefect"
    assert [wish(state) for state in (None, states.Running(), states.Crashed(), states.AwaitingRetry())] == [None] * 4


def test_a_signal_after_a_wish_is_not_the_second(monkeypatch):
    import os
    import signal

    stop, told = StopSignal(), []
    with graceful_shutdown(stop, told.append):
        stop.request("cancelled in Prefect")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "cancelled in Prefect" and "Once more stops at once" in told[0]
    with graceful_shutdown(stop := StopSignal(), told.append, insistent=False):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM" and len(told) == 2


# -- a server that goes away ---------------------------------------------------------------------------------------


def test_a_lost_server_is_told_and_a_finished_stage_does_not_wait_for_ever(served, monkeypatch):
    from prefect.exceptions import Abort

    answers = [ConnectionError("refused")] * 3 + [None]

    class Client:
        def read_flow_run(self, id):
            answer = answers.pop(0) if answers else None
            if answer is not None:
                raise answer
            return types.SimpleNamespace(state=None)

    monkeypatch.setattr(server_watch, "get_client", lambda sync_client: Client())
    monkeypatch.setattr(server_watch, "EVERY", 0.2)
    told = []
    with server_watch.watched(uuid4(), StopSignal(), told.append) as line:
        deadline = time.monotonic() + 10
        while not line.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        assert told == ["The Prefect server does not answer; the stage goes on without it"]
        with pytest.raises(Abort):
            line.hold(patience=0.0)
        line.hold(patience=10.0)
        assert not line.lost and told[1:] == ["The Prefect server answers again"]


# -- dead runs -----------------------------------------------------------------------------------------------------


def _dead(home, flow_run, pid_start=1):
    record = RunRecord(home, {"name": "tiny"}, [], None)
    record.facts |= {"process_start": pid_start, "flow_run": str(flow_run)}
    record._write()
    return record  # which holds its lock as long as anyone has it


def test_the_dead_are_settled_by_what_their_state_says(client, home):
    from prefect import flow, states

    from flows.orchestration.stale_runs import close_dead_runs

    @flow
    def any_flow():
        pass

    runs = {}
    for name, state in (
        ("crashed", states.Running()),
        ("cancelled", states.Cancelling()),
        ("paused", states.Suspended(timeout_seconds=300)),
        ("over", states.Failed()),
        ("taken up", states.Running()),
        ("elsewhere", states.Running()),
    ):
        runs[name] = client.create_flow_run(any_flow, state=states.Pending())
        client.set_flow_run_state(runs[name].id, state, force=True)
        held = _dead(home, runs[name].id)  # the last one's lock
    again = _dead(home, runs["taken up"].id)  # by one in another container, which lives
    close_dead_runs(home, None)
    found = {name: client.read_flow_run(run.id).state.name for name, run in runs.items()}
    assert found == {
        "crashed": "Crashed",
        "cancelled": "Cancelled",
        "paused": "Suspended",
        "over": "Failed",
        "taken up": "Running",
        "elsewhere": "Running",
    }
    held.release(), again.release()
    assert [facts["outcome"] for facts in records(home)].count("killed") == 5


def test_a_dead_run_of_a_deployment_waits_for_a_worker(flowctl, client, home, tiny):
    from prefect import states

    from flows.orchestration.stale_runs import close_dead_runs

    assert flowctl("deploy", tiny).exit_code == 0
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name("flowctl/tiny").id)
    client.set_flow_run_state(run.id, states.Running(), force=True)
    _dead(home, run.id)
    close_dead_runs(home, None)
    assert client.read_flow_run(run.id).state.name == "AwaitingRetry"


# -- one stage at a time on a GPU ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "visible", "names"),
    [
        (Compute(), "", ["gpu"]),
        (Compute(device="cuda:1"), "", ["gpu-1"]),
        (Compute(nproc=2), "", ["gpu", "gpu-1"]),
        (Compute(), "2,3", ["gpu-2"]),
        (Compute(nproc=2), "2,3", ["gpu-2", "gpu-3"]),
        (Compute(device="cpu"), "", []),
        (Compute(), "GPU-8f2a", ["gpu"]),
    ],
)
def test_the_limits_of_a_stage_are_those_of_its_devices(served, monkeypatch, compute, visible, names):
    from flows.orchestration.gpus import devices

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices(compute) == names


def test_without_a_gpu_there_is_nothing_to_wait_for(served, monkeypatch):
    from flows.orchestration.gpus import devices

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices(Compute()) == []


@pytest.fixture
def on_gpu(served, monkeypatch):
    """Stages that believe to run on the first GPU."""
    monkeypatch.setattr("flows.orchestration.gpus.devices", lambda compute: ["gpu"])
    monkeypatch.setattr("flows.orchestration.gpus.LOOK", 0.5)


def test_a_gpu_stage_waits_for_the_slot_and_gives_it_back(flowctl, client, tiny, on_gpu, monkeypatch):
    from flows.orchestration.gpus import create_limits

    create_limits(client, ["gpu"])
    held = client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 600).json()["lease_id"]
    note = Lines.note

    def told(self, text):
        note(self, text)
        if "teacher: waiting" in text:
            client.release_concurrency_slots_with_lease(held)

    monkeypatch.setattr(Lines, "note", told)
    result = flowctl("run", tiny, *UNTIL)
    assert result.exit_code == 0, result.output
    told = [line.partition(" …")[0] for line in result.stderr.splitlines()]
    assert told[:3] == ["data: run", "teacher: waiting for gpu, which another run uses", "teacher: run"]
    assert told[-1] == "couplings: run"  # which may wait too, until the server has taken the teacher's slot back
    assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0


def test_a_missing_limit_is_made_and_a_failing_server_is_no_reason_to_stop(flowctl, client, tiny, on_gpu, monkeypatch):
    from prefect.exceptions import ObjectNotFound

    with pytest.raises(ObjectNotFound):
        client.delete_global_concurrency_limit_by_name("gpu")
        client.read_global_concurrency_limit_by_name("gpu")
    assert flowctl("run", tiny, "--until", "teacher").exit_code == 0
    assert client.read_global_concurrency_limit_by_name("gpu").limit == 1

    def broken(slots):
        raise ConnectionError("refused")

    monkeypatch.setattr("flows.orchestration.gpus.Slots.take", broken)
    result = flowctl("run", tiny, *UNTIL)
    assert result.exit_code == 0 and "gpu could not be reserved in Prefect: refused" in result.stderr


@pytest.fixture
def slot(on_gpu, monkeypatch):
    """A slot that is always free, and what is done with it."""
    seen = []

    class Free:
        def __init__(self, names):
            pass

        def take(self):
            seen.append("taken")
            return True

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.append("given back")

    monkeypatch.setattr("flows.orchestration.gpus.Slots", Free)
    return seen


def _session(tiny):
    session = Session.open(load(tiny))
    session.record = types.SimpleNamespace(facts={"server": "named"})
    return session


def test_the_slot_is_not_kept_while_another_makes_the_artifact(slot, tiny, monkeypatch):
    from flows.orchestration import gpus

    session, holders = _session(tiny), ["process 5"]
    node = session.nodes["teacher"]

    def waited(holder, node, session):
        slot.append(f"waited for {holder}")

    monkeypatch.setattr(gpus, "wait_for", waited)

    def work(waiting):
        if holders:
            waiting(holders.pop())
        slot.append("worked")
        return Outcome("run", None, 0.0)

    assert gpus.with_gpu_lock(node, session, False, work).action == "run"
    assert slot == ["taken", "given back", "waited for process 5", "taken", "worked", "given back"]


def test_a_failure_of_the_stage_is_not_one_of_the_slot(slot, tiny):
    from flows.orchestration import gpus

    def work(waiting):
        raise TimeoutError("a network disk")

    with pytest.raises(TimeoutError, match="a network disk"):
        gpus.with_gpu_lock(_session(tiny).nodes["teacher"], _session(tiny), False, work)
    assert slot == ["taken", "given back"]


def test_no_slot_for_what_is_there_or_runs_alone(slot, tiny):
    from flows.orchestration import gpus

    session = make_all(load(tiny))
    node = session.nodes["teacher"]
    for record in (None, types.SimpleNamespace(facts={"server": None}), types.SimpleNamespace(facts={"server": "x"})):
        session.record = record
        gpus.with_gpu_lock(node, session, False, lambda waiting: None)
    assert slot == []
    gpus.with_gpu_lock(node, session, True, lambda waiting: None)  # forced: made anew
    gpus.with_gpu_lock(session.nodes["data"], session, True, lambda waiting: None)  # never on the GPU
    assert slot == ["taken", "given back"]


def test_a_stop_is_heard_while_waiting_for_the_gpu(on_gpu, tiny, monkeypatch):
    from flows.orchestration import gpus

    session = _session(tiny)

    def taken(slots):
        session.stop.request("Ctrl-C")
        return False

    monkeypatch.setattr(gpus.Slots, "take", taken)
    with pytest.raises(Interrupted, match=r"Ctrl-C\) while waiting for gpu"):
        gpus.with_gpu_lock(session.nodes["teacher"], session, False, lambda waiting: None)
