"""`run` and `plan` of a sweep: shared stages once, children for the rest, several at once, stops and failures."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest
import torch

from flows.orchestration import children, sweeps
from flows.orchestration.children import Child, ChildFailed, places, run_children
from flows.session.display import say
from flows.session.runs import records
from flows.session.session import Session
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from pipeline.recipe.sweep import Point
from storage.errors import UsageError
from storage.store import Store
from tests.flows import sweeping
from tests.flows.conftest import ROOT, make_all, written
from tests.flows.faults import fault
from tests.shared import HANGS

RATES = ("--set", "student.training.lr=0.1,0.2")
NAMES = ["tiny[student.lr=0.1]", "tiny[student.lr=0.2]"]


@pytest.fixture
def sweep(home, flowctl, monkeypatch, tmp_path):
    """Run the command line here, and its children with fake stages: `sweep("run", recipe, …, MEET="2")`."""
    monkeypatch.setattr(children, "PROGRAM", sweeping.CHILD)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the locks of their GPUs
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def call(*words, **environment):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return flowctl(*words)

    return call


def outcomes(home, stage):
    """How the recorded runs got this stage, by name of the run."""
    return {
        facts["name"]: line["outcome"]
        for facts in records(home)
        for text in (home / "runs" / f"{facts['id']}.jsonl").read_text().splitlines()
        for line in [json.loads(text)]
        if line["event"] == "end" and line["stage"] == stage
    }


# -- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_has_shared_stages_once(flowctl, finished, tiny):
    lines = json.loads(flowctl("plan", tiny, *RATES, "--set", "seed=0,1", "--json").stdout)
    assert [line["stage"] for line in lines].count("data") == 1
    assert [line["action"] for line in lines if line["stage"] == "bank"] == ["reuse", "run"]  # of seed 0 and 1
    assert [line["runs"] for line in lines if line["stage"] == "teacher"] == [NAMES, [f"{name}@1" for name in NAMES]]
    students = [(line["action"], line["runs"]) for line in lines if line["stage"] == "student"]
    assert students == [
        ("reuse", NAMES[:1]), ("run", [f"{NAMES[0]}@1"]), ("run", NAMES[1:]), ("run", [f"{NAMES[1]}@1"]),
    ]  # fmt: skip
    dag = flowctl("plan", tiny, *RATES, "--dag").stdout.split("\n")
    assert (
        len([line for line in dag if line.startswith("  student_")]) > 2 and '  data["data<br/>reuse"]:::reuse' in dag
    )


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("--set", "compute.threads=1,2"), "tiny[compute.threads=1] and tiny[compute.threads=2]"),
        ((*RATES, "--until", "bank"), " and ".join(NAMES)),
        ((*RATES, "--set", "compute.nnodes=2", "--set", "compute.rendezvous=first:29400"), "nnodes=2"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(flowctl, tiny, words, value):
    for command in ("plan", "run"):
        error = fault(flowctl(command, tiny, *words))
        assert type(error) is UsageError and error.value == value


# -- running ---------------------------------------------------------------------------------------------------------


def test_a_sweep_runs_what_is_missing_and_ends_in_the_table(sweep, home, tiny, flowctl):
    make_all(load(tiny))  # the first of the sweep, as no run has recorded it
    done = sweep("run", tiny, *RATES)
    assert done.exit_code == 0, done.stderr
    assert [line.split("] ")[0] for line in done.stderr.splitlines() if line.startswith("[")] == ["[1 of 1"]
    head, *rows = done.stdout.splitlines()
    assert head.split()[0] == "RUN" and [row.split()[0] for row in rows] == NAMES
    assert all("FD-classifier" in row and "done" in row for row in rows)
    assert outcomes(home, "student") == dict(zip(NAMES, ("reused", "run"), strict=True))
    assert set(outcomes(home, "bank").values()) == {"reused"}
    names = {artifact.name for artifact in Store(home).artifacts() if artifact.stage in ("teacher", "student")}
    assert names == {"tiny", NAMES[1]}
    again = sweep("run", tiny, *RATES)
    assert again.stdout == done.stdout and "[1 of" not in again.stderr
    for name in NAMES:  # a run of a sweep is a run like any other
        assert json.loads(flowctl("show", name, "--json").stdout)["name"] == name
        assert flowctl("report", name).exit_code == 0
    compared = json.loads(flowctl("compare", tiny, *RATES, "--json").stdout)
    assert [run["recipe"] for run in compared["runs"]] == NAMES


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others(sweep, home, tiny):
    done = sweep("run", tiny, *RATES, FAKES='{"student": {"fail": "ValueError"}}')
    assert done.exit_code == 1 and "2 of 2" in done.stderr.splitlines()[-1]
    assert [row.split()[2] for row in done.stdout.splitlines()[1:]] == ["failed"] * 2
    again = sweep("run", tiny, *RATES)
    assert again.exit_code == 0 and set(outcomes(home, "student").values()) == {"resumed"}


@pytest.mark.slow
def test_force_reruns_a_shared_stage_once(sweep, home, tiny):
    for rate in (0.1, 0.2):
        make_all(load(tiny, [f"student.training.lr={rate}"]))
    fingerprint = Session.open(load(tiny)).nodes["bank"].fingerprint
    before = written("bank", fingerprint)
    done = sweep("run", tiny, *RATES, "--force", "bank", "--force", "student")
    assert done.exit_code == 0, done.stderr
    assert sorted(outcomes(home, "bank").values()) == ["reused", "run"]
    assert set(outcomes(home, "student").values()) == {"run"}
    assert before != written("bank", fingerprint)


# -- several at once -------------------------------------------------------------------------------------------------


def test_one_place_for_each_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = lambda **given: [place.get("CUDA_VISIBLE_DEVICES") for place in places(Compute(), **given)]  # noqa: E731
    assert gpus(children=8) == ["0", "1"] and gpus(children=1) == [None]
    assert gpus(children=8, jobs=3) == ["0", "1", "0"] and gpus(children=8, jobs=1) == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus(children=8) == ["3", "5"]
    assert places(Compute(threads=8), 4)[0]["OMP_NUM_THREADS"] == "4"
    for alone in (Compute(device="cuda:1"), Compute(device="cpu"), Compute(nproc=2)):
        assert places(alone, 8) == [{}]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert places(Compute(), 8) == [{}] and len(places(Compute(), 8, jobs=2)) == 2


@pytest.mark.slow
def test_students_run_at_the_same_time_and_what_they_share_once(sweep, home, tiny):
    done = sweep("run", tiny, *RATES, "--jobs", "2", MEET="2")
    assert done.exit_code == 0, done.stderr
    assert sorted(outcomes(home, "bank").values()) == ["reused", "run"]
    assert set(outcomes(home, "student").values()) == {"run"}
    assert all(f"{name}: student: run" in done.stderr for name in NAMES)  # whose line it is


@pytest.mark.slow
def test_on_one_gpu_its_lock_lets_one_student_run_at_a_time(sweep, home, tiny):
    slow = '{"student": {"steps": 4, "seconds": 0.1}}'
    done = sweep("run", tiny, *RATES, "--jobs", "2", CUDA_VISIBLE_DEVICES="7", ALONE="", FAKES=slow)
    assert done.exit_code == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_every_run(sweep, home, tiny, number):
    slow = '{"student": {"steps": 600, "seconds": 0.1}}'

    def end() -> None:
        deadline = time.monotonic() + HANGS
        while time.monotonic() < deadline:
            if len(list(home.glob("work/student/*/saved.json"))) == 2:
                os.kill(os.getpid(), number)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=end)
    thread.start()
    done = sweep("run", tiny, "--set", "student.training.lr=0.1,0.2,0.3", "--jobs", "2", FAKES=slow)
    thread.join()
    assert done.exit_code == 1 and "1 of 3" in done.stderr.splitlines()[-1]
    assert outcomes(home, "student") == dict.fromkeys(NAMES, "stopped")
    assert sweep("run", tiny, *RATES).exit_code == 0
    assert outcomes(home, "student") == dict.fromkeys(NAMES, "resumed")


# -- children --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("places", [1, 2])
def test_a_reader_of_stderr_that_is_gone_stops_nothing(monkeypatch, tmp_path, places):
    """As in `flowctl run … 2>&1 | head`; the output of children at the same time goes through this process."""
    program = "import sys\nfor _ in range(20000): print('a line of a child')\nsys.exit(3)"
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", program))
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stderr", open(writer, "w"))  # noqa: SIM115
    both = [Child(load("nfm-digits"), name) for name in ("a", "b")]
    assert run_children(both, say, [{}] * places, keep_going=True) == dict.fromkeys(both, 3)


def test_without_keep_going_a_failure_is_the_last(home, monkeypatch):
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(int(sys.argv[-1]))"))
    good, bad, late = (Child(load("nfm-digits"), "a", options=(code,)) for code in ("0", "3", "4"))
    assert run_children([good, bad, late], lambda text: None) == {good: 0, bad: 3}
    assert ChildFailed.retryable


def test_runs_that_are_finished_are_still_sent(flowctl, tiny, monkeypatch):
    """What an upload that failed left behind: the same command sends it."""
    make_all(load(tiny))
    make_all(load(tiny, ["student.training.lr=0.2"]))
    started = []
    monkeypatch.setattr(sweeps, "run_children", lambda children, *given, **more: started.extend(children) or {})
    runs = sweeps.open_sweep([(load(tiny, [f"student.training.lr={rate}"]), Point((), {})) for rate in (0.1, 0.2)])
    for remote, names in ((None, []), (object(), [run.name for run in runs])):
        for run in runs:
            run.session.remote = remote
        with suppress(ChildFailed):  # none of them says how it ended
            sweeps.launch_sweep(runs, tiny, (), tell=print)
        assert [child.name for child in started] == names
