"""`deploy`, and what reaches a flow from outside: cancelled, paused, a server that is gone, dead runs."""

import json
import os
import signal
import threading
import time
import types
from contextlib import contextmanager
from uuid import uuid4

import pytest

from flows.session import process
from flows.session.display import Lines
from flows.session.interrupts import graceful_shutdown
from flows.session.runs import RunRecord, records
from pipeline.engine import dag
from pipeline.recipe.load import load
from pipeline.runtime.job import StopSignal
from storage.store import Store
from tests.flows import fakes
from tests.shared import HANGS

pytestmark = pytest.mark.usefixtures("home")
UNTIL = ("--until", "bank")


@pytest.fixture
def served(prefect_server, monkeypatch):
    """Commands find the tests' server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)  # done once, by the fixture


@pytest.fixture(autouse=True)
def environment():
    """A worker's process is prepared, and ends with its run; this one goes on to the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def client(served):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def _last_run(client, home):
    (*_, facts) = records(home)
    return client.read_flow_run(facts["flow_run"])


# -- flowctl deploy ------------------------------------------------------------------------------------------------


def test_deploy_needs_a_server(flowctl, program, tiny):
    result = flowctl("deploy", tiny)
    assert result.exit_code == 2 and "flowctl ui" in result.stderr and result.stderr.count("\n") == 1
    process = program("deploy", tiny, PREFECT_API_URL="http://127.0.0.1:1/api")
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 1 and "http://127.0.0.1:1/api" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nfm-digts",), "Did you mean 'nfm-digits'?"),
        (("{tiny}", "--set", "sede=1"), "Did you mean 'seed'?"),
        (("{tiny}", "{tiny}"), "different names"),
    ],
)
def test_deploy_takes_sound_recipes(flowctl, tiny, words, said):
    result = flowctl("deploy", *(word.format(tiny=tiny) for word in words))
    assert result.exit_code == 2 and said in result.stderr


def test_a_deployment_is_made_and_made_anew(flowctl, client, home, tiny):
    result = flowctl("deploy", tiny, "--pool", "shed", "--schedule", "0 2 * * *", "--set", "seed=7")
    assert result.exit_code == 0, result.output
    assert "flowctl/tiny@7" in result.stdout and "prefect worker start --pool shed" in result.stdout
    assert client.read_work_pool("shed").type == "process"
    made = client.read_deployment_by_name("flowctl/tiny@7")
    assert made.tags == ["seed 7"]
    assert made.parameters == {"recipe": load(tiny, ["seed=7"]).model_dump(mode="json"), "force": None, "until": None}
    assert (made.entrypoint, made.work_pool_name) == ("flows.orchestration.pipeline_flow.pipeline", "shed")
    assert made.job_variables["env"]["FLOWCTL_HOME"] == str(home) and made.job_variables["stream_output"] is False
    assert [(item.schedule.cron, item.schedule.timezone, item.active) for item in made.schedules] == [
        ("0 2 * * *", "UTC", True)
    ]
    assert flowctl("deploy", tiny, "--set", "seed=7").exit_code == 0
    again = client.read_deployment_by_name("flowctl/tiny@7")
    assert (again.id, again.work_pool_name, again.schedules) == (made.id, "flowctl", [])
    assert flowctl("deploy", tiny).exit_code == 0
    assert client.read_deployment_by_name("flowctl/tiny").parameters["recipe"]["seed"] == 0


def test_deploy_refuses_a_schedule_that_is_none_and_a_pool_of_another_type(flowctl, client, tiny):
    from prefect.client.schemas.actions import WorkPoolCreate

    result = flowctl("deploy", tiny, "--schedule", "often")
    assert result.exit_code == 2 and "often" in result.stderr
    client.create_work_pool(WorkPoolCreate(name="clouds", type="kubernetes"))
    result = flowctl("deploy", tiny, "--pool", "clouds")
    assert result.exit_code == 2 and "clouds, of type kubernetes" in result.stderr


def test_a_relative_path_still_leads_there_from_a_worker(served, tiny, tmp_path, monkeypatch):
    from flows.orchestration.deployments import _parameters

    monkeypatch.chdir(tmp_path)
    files = ["data.source=images", "data.path=photos", "data.autoencoder=vae", "reference.weights=inception.pth"]
    recipe = load(tiny, [*files, "reference.extractor=inception", f"reference.checksum=sha256:{'0' * 64}"])
    tree, plain = _parameters(recipe)["recipe"], recipe.model_dump(mode="json")
    for section, field in (("data", "path"), ("data", "autoencoder"), ("reference", "weights")):
        plain[section][field] = str(tmp_path / plain[section][field])
    assert tree == plain


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
    assert facts["flow_run"] == str(state.state_details.flow_run_id) and facts["outcome"] == "3 run"
    assert in_worker().message == "3 reused"


def test_a_workers_process_is_prepared_as_that_of_a_command(in_worker, home, monkeypatch):
    Store(home).prepare()  # as `flowctl deploy` does
    monkeypatch.setenv("MPLBACKEND", "none")
    monkeypatch.setenv("no_proxy", "intranet")
    for name in process.CACHES:
        monkeypatch.delenv(name, raising=False)
    seen = {}

    def module(stage):
        return types.SimpleNamespace(run=lambda job: seen.update(os.environ) or fakes.run(job, {}))

    monkeypatch.setattr(dag.Stage, "module", module)
    assert in_worker().is_completed()
    worker = dict(seen)
    os.environ.update(MPLBACKEND="none", no_proxy="intranet")
    for name in process.CACHES:
        del os.environ[name]
    process.prepare_process()
    names = ("MPLBACKEND", "no_proxy", "NO_PROXY", *process.CACHES)
    assert {name: worker.get(name) for name in names} == {name: os.environ[name] for name in names}
    assert worker["MPLBACKEND"] == "agg"


def test_a_worker_is_told_what_is_wrong_with_a_recipe(in_worker, home):
    state = in_worker(sede=1)
    assert state.is_failed() and "Did you mean 'seed'?" in state.message
    assert not (home / "artifacts").exists() or not list((home / "artifacts").iterdir())


# -- cancelled and paused ------------------------------------------------------------------------------------------


def _asks(client, home, state):
    """Set the state of the flow run, as the UI does, once its couplings are under way."""

    def ask():
        deadline = time.monotonic() + HANGS
        while not list((home / "work" / "bank").glob("*/saved.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        (*_, facts) = records(home)
        client.set_flow_run_state(facts["flow_run"], state, force=True)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize("wish", ["cancelled", "paused"])
def test_a_running_stage_reacts_to_the_ui(flowctl, client, home, tiny, monkeypatch, wish):
    from prefect.states import Cancelling, Paused

    monkeypatch.setattr("flows.orchestration.server_watch.POLL_SECONDS", 0.1)
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
    end = Lines.end

    def ended(display, stage, outcome):
        end(display, stage, outcome)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Lines, "end", ended)
    result = flowctl("run", tiny, *UNTIL)
    assert result.exit_code == 1 and "data: run" in result.stderr and "before stage teacher" in result.stderr


@pytest.mark.parametrize(
    ("named", "reschedule", "ends", "becomes"),
    [
        ("Cancelling", False, "Abort", "Cancelled"),
        ("Cancelled", False, "Abort", "Cancelled"),
        ("Suspended", True, "Pause", None),
        ("Paused", False, "Pause", "Suspended"),  # else Resume would leave it Running without a process
        ("Running", False, "Abort", "AwaitingRetry"),
    ],
)
def test_an_interrupted_run_ends_as_it_was_asked_to(served, monkeypatch, named, reschedule, ends, becomes):
    from prefect.client.schemas import State
    from prefect.client.schemas.objects import StateDetails, StateType

    from flows.orchestration import deployed

    kind = "PAUSED" if named == "Suspended" else named.upper()
    details = StateDetails(pause_reschedule=reschedule, pause_timeout=None)
    changed = []

    class Client:
        def read_flow_run(self, id):
            return types.SimpleNamespace(id=id, state=State(type=StateType[kind], name=named, state_details=details))

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
    assert [state.name for state in changed] == ([becomes] if becomes else [])
    assert becomes != "Suspended" or changed[0].state_details.pause_reschedule


def test_which_states_stop_a_run(served):
    from prefect import states

    from flows.orchestration.server_watch import stop_reason

    assert stop_reason(states.Cancelling()) == stop_reason(states.Cancelled()) == "cancelled in Prefect"
    assert (
        stop_reason(states.Suspended(timeout_seconds=5))
        == stop_reason(states.Paused(timeout_seconds=5))
        == "paused in Prefect"
    )
    assert [stop_reason(state) for state in (None, states.Running(), states.Crashed(), states.AwaitingRetry())] == [
        None
    ] * 4


def test_a_signal_after_a_request_is_not_the_second(monkeypatch):
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


# -- dead runs -----------------------------------------------------------------------------------------------------


def _dead(home, flow_run, attempt=None):
    record = RunRecord(home, {"name": "tiny"}, [], None)
    record.joined(flow_run, attempt)
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


def test_a_worker_does_not_offer_again_what_it_has_taken_up(flowctl, client, home, tiny):
    """The killed attempt and this one have the same flow run: a second process would join this one."""
    from prefect import states

    from flows.orchestration.deployed import session_of

    assert flowctl("deploy", tiny).exit_code == 0
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name("flowctl/tiny").id)
    client.set_flow_run_state(run.id, states.Running(), force=True)
    _dead(home, run.id)
    with session_of(run.id, load(tiny).model_dump(mode="json"), (), "bank"):
        assert client.read_flow_run(run.id).state.name == "Running"
    assert [facts["outcome"] for facts in records(home)] == ["killed", ""]


def test_a_dead_run_that_a_process_has_just_taken_up_is_left_to_it(client, home, monkeypatch):
    """Prefect says Running before that process has written its record."""
    from datetime import timedelta

    from prefect import flow, states

    from flows.orchestration import stale_runs

    @flow
    def any_flow():
        pass

    run = client.create_flow_run(any_flow, state=states.Pending())
    client.set_flow_run_state(run.id, states.Running(), force=True)
    attempt = client.read_flow_run(run.id).run_count
    _dead(home, run.id, attempt - 1).release()
    stale_runs.close_dead_runs(home, None)
    (facts,) = records(home)
    assert (client.read_flow_run(run.id).state.name, facts["outcome"]) == ("Running", None)
    with monkeypatch.context() as patch:
        patch.setattr(stale_runs, "BEGIN", timedelta(0))  # that process has died too, before its record
        stale_runs.close_dead_runs(home, None)
    (facts,) = records(home)
    assert (client.read_flow_run(run.id).state.name, facts["outcome"]) == ("Crashed", "killed")
    later = client.create_flow_run(any_flow, state=states.Pending())
    client.set_flow_run_state(later.id, states.Running(), force=True)
    _dead(home, later.id, client.read_flow_run(later.id).run_count).release()
    stale_runs.close_dead_runs(home, None)
    assert client.read_flow_run(later.id).state.name == "Crashed"  # its own process is the dead one
