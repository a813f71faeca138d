"""The flow in Prefect: states, logs, artifacts, failures, retries, interrupts and dead runs, with fake stages."""

import base64
import errno
import json
import os
import signal
import time
import types

import pytest

from flows.orchestration.server_errors import ServerFailed, ServerRefused, ServerUnread
from flows.session.remotes import Unsent
from flows.session.runs import RunRecord, records
from flows.session.session import Session
from pipeline.engine import dag
from pipeline.recipe.load import load
from storage.errors import DiskError, FlowctlError, Interrupted, StageFailed
from storage.remote import RemoteError
from tests.flows import fakes
from tests.flows.faults import fault

pytestmark = pytest.mark.usefixtures("home")
UNTIL = ("--until", "bank")  # data, teacher, couplings
SHORT = ("--until", "teacher")


@pytest.fixture
def run(flowctl, tiny, prefect_server, monkeypatch):
    """`flowctl run tiny ...` against the tests' server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)  # done once, by the fixture
    monkeypatch.setattr("flows.orchestration.pipeline_flow.run.retry_delay_seconds", [0, 0])
    return lambda *words: flowctl("run", tiny, *words)


@pytest.fixture
def client(prefect_server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def _behave(monkeypatch, **stages):
    monkeypatch.setenv("FAKES", json.dumps(stages))


def _last_run(client, home):
    (*_, facts) = records(home)
    return client.read_flow_run(facts["flow_run"]), facts


def _tasks(client, flow_run, expected):
    """Names and states of the tasks, in order; Prefect stores them a little later."""
    from prefect.client.schemas.filters import FlowRunFilter

    mine = FlowRunFilter.model_validate({"id": {"any_": [str(flow_run.id)]}})
    for _ in range(100):
        runs = sorted(client.read_task_runs(flow_run_filter=mine), key=lambda run: run.start_time or run.created)
        if [(run.name, run.state.name) for run in runs] == expected:
            break
        time.sleep(0.1)
    return [(run.name, run.state.name) for run in runs], runs


def test_a_run_its_reuse_and_its_pictures(run, client, home):
    result = run(*UNTIL)
    assert result.exit_code == 0, result.output
    assert [line.partition(" …")[0] for line in result.stderr.splitlines()] == [
        "data: run",
        "teacher: run",
        "bank: run",
    ]
    flow_run, facts = _last_run(client, home)
    assert (flow_run.name, flow_run.state.name, flow_run.state.message) == ("tiny, seed 0", "Completed", "3 run")
    assert {facts["id"], "seed 0"} <= set(flow_run.tags) and facts["outcome"] == "3 run"
    names, tasks = _tasks(client, flow_run, [(stage, "Completed") for stage in ("data", "teacher", "bank")])
    assert names == [("data", "Completed"), ("teacher", "Completed"), ("bank", "Completed")]
    upstream = {source.id for source in tasks[2].task_inputs["wait_for"]}
    assert upstream == {tasks[0].id, tasks[1].id}

    result = run(*UNTIL)
    assert result.exit_code == 0 and "Nothing to run: all 3 stages" in result.stdout
    flow_run, _ = _last_run(client, home)
    assert (flow_run.state.name, flow_run.state.message) == ("Reused", "3 reused")
    reused = [(f"{stage} (reused)", "Reused") for stage in ("data", "teacher", "bank")]
    assert _tasks(client, flow_run, reused)[0] == reused

    mine = _artifacts(client, flow_run)
    assert [row["outcome"] for row in json.loads(mine["tiny-seed-0-stages"].data)] == ["reused"] * 3


def _artifacts(client, flow_run):
    from prefect.client.schemas.filters import ArtifactFilter

    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter())
    return {artifact.key: artifact for artifact in artifacts if artifact.flow_run_id == flow_run.id}


def test_scores_and_samples_are_shown_by_the_seed(run, client, home):
    assert run("--set", "seed=2").exit_code == 0
    flow_run, _ = _last_run(client, home)
    assert flow_run.name == "tiny, seed 2" and "seed 2" in flow_run.tags
    shown = _artifacts(client, flow_run)
    rows = json.loads(shown["tiny-seed-2-scores"].data)
    assert [(row["sampler"], row["NFE"], row["metric"], row["value"]) for row in rows] == [
        ("euler, uniform grid", "1", "FD-classifier", "9.000"),
        ("euler, quadratic grid", "2", "FD-classifier", "4.500"),
    ]
    assert "| student | euler, uniform grid |" in shown["tiny-seed-2-summary"].data
    image = base64.b64decode(shown["tiny-seed-2-samples"].data.partition(",")[2])
    assert image == fakes.GRID
    assert "tiny-seed-2-report-page" not in shown  # nothing serves it


class Refusing:
    """A remote that has nothing and takes nothing."""

    url = "s3://bucket"

    def find(self, stage, fingerprint):
        return None

    def send(self, artifact, replace, moment):
        raise RemoteError(self.url, "access is refused", "Check the keys.")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [({"fail": "StageFailed"}, StageFailed), ({"fail": "FlowctlError"}, FlowctlError), ({}, Unsent)],
)
def test_a_failure_is_not_hidden_by_what_could_not_be_sent(run, tiny, monkeypatch, behaviour, error):
    from flows.orchestration.launch import launch

    _behave(monkeypatch, teacher=behaviour)
    session = Session.open(load(tiny), until="teacher")
    session.remote = Refusing()
    with pytest.raises(FlowctlError) as raised:
        launch(session)
    assert type(raised.value) is error and "data" in session.unsent
    assert session.record.facts["outcome"] == f"failed: {raised.value}" or error is Unsent


def test_the_flow_follows_its_parameters_and_not_its_caller(client, home, tiny):
    """Inside the session of one recipe, the flow of another runs the other."""
    from flows.orchestration.pipeline_flow import pipeline
    from flows.session.recording import recording
    from flows.session.session import current
    from pipeline.engine.plan import plan

    session = Session.open(load(tiny))
    session.store.prepare()
    other = load(tiny, ["name=other"]).model_dump(mode="json")
    with recording(session, plan(session.nodes, session.store)), current(session):
        assert pipeline(other, until="teacher", return_state=True).message == "2 run"
    assert next((home / "artifacts/teacher").iterdir()).name.startswith("other-")


def test_a_run_leaves_a_journal_with_a_span_for_each_stage(run, home):
    assert run(*UNTIL).exit_code == 0
    [journal] = (home / "runs").glob("run-*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    ends = [(line["stage"], line["outcome"]) for line in lines if line["event"] == "end"]
    assert ends == [("data", "run"), ("teacher", "run"), ("bank", "run")]
    assert any(line["event"] == "log" and line["stage"] == "teacher" for line in lines)


def test_the_stages_logs_reach_prefect(run, client, home):
    run("--until", "data")
    flow_run, _ = _last_run(client, home)
    from prefect.client.schemas.filters import LogFilter

    wanted = LogFilter.model_validate({"flow_run_id": {"any_": [str(flow_run.id)]}})
    for _ in range(100):
        if any(log.message == "hello from data" for log in client.read_logs(wanted)):
            return
        time.sleep(0.1)
    raise AssertionError([log.message for log in client.read_logs(wanted)])


@pytest.mark.parametrize(
    ("fail", "said"), [("ValueError", "ValueError: boom second line"), ("StageFailed", "not finite at image 640")]
)
def test_a_failing_stage_fails_the_flow_and_stops_it(run, client, home, monkeypatch, fail, said):
    _behave(monkeypatch, teacher={"fail": fail})
    result = run(*UNTIL)
    assert result.exit_code == 1
    assert said in result.stderr.splitlines()[-1] and "Traceback" not in result.output
    flow_run, facts = _last_run(client, home)
    assert flow_run.state.name == "Failed" and "teacher" in flow_run.state.message
    names, _ = _tasks(client, flow_run, [("data", "Completed"), ("teacher", "Failed")])
    assert names == [("data", "Completed"), ("teacher", "Failed")]
    assert facts["outcome"].startswith("failed: ")
    table = json.loads(_artifacts(client, flow_run)["tiny-seed-0-stages"].data)
    assert [row["outcome"] for row in table] == ["run", "failed", "not reached"]
    assert (home / "work" / "teacher").is_dir() and not list((home / "artifacts" / "teacher").iterdir())
    _behave(monkeypatch)
    assert "teacher: resumed" in run(*UNTIL).stderr


def test_a_stage_that_refuses_its_input_ends_with_2(run, monkeypatch):
    from storage.errors import InputError

    monkeypatch.setitem(fakes.ERRORS, "ValueError", lambda: InputError("All images have one size", "8x9", "Crop them"))
    _behave(monkeypatch, data={"fail": "ValueError"})
    result = run("--until", "data")
    assert result.exit_code == 2
    assert result.stderr == "error: All images have one size, got '8x9'. Crop them.\n"


def test_a_forced_stage_is_not_rerun_by_the_command_that_resumes(run, monkeypatch):
    forced = (*UNTIL, "--force", "teacher")
    _behave(monkeypatch, bank={"fail": "StageFailed"})
    assert "teacher: run" in run(*forced).stderr
    _behave(monkeypatch)
    result = run(*forced)
    assert result.exit_code == 0 and "teacher: reused" in result.stderr
    assert "teacher: run" in run(*forced).stderr


@pytest.mark.slow
def test_a_forced_stage_that_fails_goes_on_whether_it_is_forced_again_or_not(run, flowctl, tiny, monkeypatch):
    assert run(*SHORT).exit_code == 0
    _behave(monkeypatch, teacher={"steps": 4, "fail": "timeout", "times": 1})
    result = run(*SHORT, "--force", "teacher")  # Prefect's own second attempt
    assert result.exit_code == 0 and "teacher: resumed" in result.stderr, result.output

    _behave(monkeypatch, teacher={"steps": 4, "fail": "ValueError", "times": 1})
    forced = ("--force", "data", "--force", "teacher")
    assert run(*SHORT, *forced).exit_code == 1
    shown = flowctl("plan", tiny, *SHORT).stdout
    assert "forced by --force, saved at 2 of 4 images" in shown
    result = run(*SHORT, *forced)
    assert result.exit_code == 0 and "teacher: resumed" in result.stderr and "data: reused" in result.stderr
    assert "Nothing to run" in run(*SHORT).stdout


def test_only_transient_failures_are_tried_again(run, client, home, monkeypatch):
    _behave(monkeypatch, teacher={"fail": "timeout", "times": 2})
    result = run("--until", "teacher")
    assert result.exit_code == 0, result.output
    flow_run, _ = _last_run(client, home)
    _, tasks = _tasks(client, flow_run, [("data", "Completed"), ("teacher", "Resumed")])
    assert [task.run_count for task in tasks] == [1, 3]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, ""), True),
        (OSError(errno.ETIMEDOUT, ""), True),
        (ConnectionResetError(), True),
        (OSError(errno.ESTALE, ""), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, ""), False),
        (OSError(errno.EROFS, ""), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (OSError("an image that does not decode"), False),
        (ValueError(), False),
        (StageFailed("not finite"), False),
        (MemoryError(), False),
    ],
)
def test_only_errors_that_can_pass_are_retried(error, again, prefect_server):
    from flows.orchestration.pipeline_flow import transient

    assert transient(error) is again


def _signalled(*numbers):
    """A stage that is sent signals while it works."""

    def stage_run(job):
        for number in numbers:
            os.kill(os.getpid(), number)
        job.saved(1, 2, "images")
        job.pause_point()

    return lambda stage: types.SimpleNamespace(run=stage_run) if stage.name == "teacher" else fakes.module(stage)


def test_ctrl_c_saves_and_cancels(run, client, home, monkeypatch):
    monkeypatch.setattr(dag.Stage, "module", _signalled(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = run(*SHORT)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: Stopped in stage teacher (Ctrl-C)")
    flow_run, facts = _last_run(client, home)
    assert flow_run.state.name == "Cancelled" and facts["outcome"].startswith("stopped: ")
    assert _tasks(client, flow_run, [("data", "Completed"), ("teacher", "Cancelled")])[0][-1][1] == "Cancelled"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    monkeypatch.setattr(dag.Stage, "module", fakes.module)
    assert "teacher: resumed" in run(*SHORT).stderr


def test_ctrl_c_twice_stops_at_once(run, client, home, monkeypatch):
    monkeypatch.setattr(dag.Stage, "module", _signalled(signal.SIGINT, signal.SIGINT))
    result = run(*SHORT)
    assert result.exit_code == 1 and "error: Stopped at once" in result.stderr
    flow_run, facts = _last_run(client, home)
    assert flow_run.state.name == "Crashed" and facts["outcome"] == "stopped at once"


def test_a_killed_run_is_marked_crashed_by_the_next(run, client, home):
    from prefect import flow, tags, task
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Running

    record = RunRecord(home, {"name": "tiny"}, [], None)

    @task
    def half():
        pass

    @flow
    def killed():
        half()

    with tags(record.id):
        killed()
    mine = FlowRunFilter.model_validate({"tags": {"all_": [record.id]}})
    (dead,) = client.read_flow_runs(flow_run_filter=mine)
    client.set_flow_run_state(dead.id, Running(), force=True)
    record.release()
    assert run("--until", "data").exit_code == 0
    assert client.read_flow_run(dead.id).state.name == "Crashed"
    assert next(records(home))["outcome"] == "killed"


def _refused(status):
    """The answer of a server, as Prefect's client raises it."""
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    request = httpx.Request("POST", "http://127.0.0.1:9/api/flow_runs/")
    response = httpx.Response(status, json={"detail": "no"}, request=request)
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        return PrefectHTTPStatusError.from_httpx_error(error)


def _unreadable():
    from prefect.client.schemas import State
    from pydantic import ValidationError

    try:
        State.model_validate({"type": "NEW KIND"})
    except ValidationError as error:
        return error


def _not_found():
    from prefect.exceptions import ObjectNotFound

    return ObjectNotFound(_refused(404))


def _cancelled():
    from prefect.exceptions import Abort

    return Abort("cancelled before it began")


def _lost(error):
    from prefect.exceptions import Abort

    abort = Abort("lost")
    abort.__cause__ = error
    return abort


@pytest.mark.parametrize("inside", [False, True])  # of the flow, where Prefect makes a state of it
@pytest.mark.parametrize(
    ("make", "kind", "status", "again"),
    [
        (lambda: ConnectionError("refused"), ServerFailed, None, True),
        (lambda: _lost(ConnectionError("refused")), ServerFailed, None, True),
        (lambda: _refused(401), ServerRefused, 401, False),
        (lambda: _refused(503), ServerRefused, 503, True),
        (lambda: _lost(_refused(500)), ServerRefused, 500, True),
        (_not_found, ServerRefused, 404, False),
        (_unreadable, ServerUnread, None, False),
        (_cancelled, Interrupted, None, True),
        (lambda: DiskError("full"), DiskError, None, False),
    ],
)
def test_what_ends_a_run_in_prefect_is_told_as_what_it_is(run, monkeypatch, inside, make, kind, status, again):
    def ended(*_, **__):
        raise make()

    name = "_run" if inside else "pipeline"
    monkeypatch.setattr(f"flows.orchestration.pipeline_flow.{name}", ended)
    error = fault(run(*UNTIL))
    assert (type(error), getattr(error, "status", None), error.retryable) == (kind, status, again)


@pytest.mark.usefixtures("run")
def test_an_error_of_nobody_we_know_stays_what_it_is(tiny, monkeypatch):
    from flows.orchestration.launch import launch

    def ended(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("flows.orchestration.pipeline_flow._run", ended)
    with pytest.raises(ZeroDivisionError):
        launch(Session.open(load(tiny), until="bank"))


def test_a_full_disk_that_ends_the_server_too_is_told_as_that(run, monkeypatch):
    from flows.session.session import find

    def gone(*_, **__):
        find().error = DiskError("Stage data could not write its files")
        raise ConnectionError("refused")

    monkeypatch.setattr("flows.orchestration.pipeline_flow.pipeline", gone)
    assert type(fault(run(*UNTIL))) is DiskError


def test_progress_survives_a_server_in_trouble(monkeypatch, prefect_server, tiny):
    from flows.orchestration import ui_artifacts
    from flows.session.recording import recording
    from pipeline.engine.plan import plan
    from pipeline.runtime.job import ProgressUpdate

    calls = []

    def broken(*args, **kwargs):
        calls.append(args)
        raise ConnectionError("refused")

    monkeypatch.setattr(ui_artifacts, "create_progress_artifact", broken)
    session = Session.open(load(tiny))
    with recording(session, plan(session.nodes, session.store)):
        listener = ui_artifacts.ProgressArtifact(session, "teacher")
    for done in range(5):
        listener(ProgressUpdate("teacher", done, 9, "images", 1.0, {}))
    assert len(calls) == 1  # and then it is quiet for a while
