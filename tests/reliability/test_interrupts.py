"""Signals, exceptions and memory that runs out: in whole processes, and inside a stage."""

import json
import os
import signal
import sqlite3
import time
import types

import pytest
import torch

from pipeline.engine import dag
from pipeline.engine.dag import build
from pipeline.engine.execute import execute
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from storage.errors import StageFailed
from storage.store import Store
from tests.shared import HANGS

UNTIL = ("--until", "bank")


def behaviour(seconds: float) -> str:
    """Couplings in 100 steps, each so long and then saved."""
    return json.dumps({"bank": {"steps": 100, "seconds": seconds}})


def saved(home) -> int:
    """How far the couplings would go on from; 0 for nothing."""
    found = [json.loads(file.read_text())["done"] for file in (home / "work" / "bank").glob("*/saved.json")]
    return found[0] if found else 0


def once_saved(home, process, beyond: int = 0) -> int:
    """Wait until more steps than `beyond` are saved: how many."""
    deadline = time.monotonic() + HANGS
    while (done := saved(home)) <= beyond:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return done


def states(home) -> list[str]:
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        return [name for (name,) in database.execute("select state_name from flow_run order by created")]


@pytest.mark.slow
def test_sigterm_then_ctrl_c_twice_then_to_the_end(program, home, tiny):
    """Three processes in turn on one store; each goes on from what the one before had saved."""
    first = program("run", tiny, *UNTIL, FAKES=behaviour(0.2))
    once_saved(home, first)
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=HANGS)
    assert first.returncode == 1
    assert "SIGTERM" in err.splitlines()[-2]
    assert err.splitlines()[-1].startswith("error: ") and "SIGTERM" in err.splitlines()[-1]

    second = program("run", tiny, *UNTIL, FAKES=behaviour(10))
    before = once_saved(home, second, saved(home))  # ten seconds to the next point where it could save
    second.send_signal(signal.SIGINT)
    while "Once more stops at once" not in second.stderr.readline():
        assert second.poll() is None
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=HANGS)
    assert second.returncode == 1 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: Stopped at once")
    assert saved(home) == before

    third = program("run", tiny, *UNTIL)
    _, err = third.communicate(timeout=HANGS)
    assert third.returncode == 0 and "bank: resumed" in err, err
    assert states(home) == ["Cancelled", "Crashed", "Completed"]


@pytest.mark.slow
def test_the_prefect_server_is_killed(program, home, tiny):
    """The stage in hand ends and is kept; then one line says what happened; the next run has a server of its own."""
    first = program("run", tiny, *UNTIL, FAKES=behaviour(0.05))
    once_saved(home, first)
    with open(f"/proc/{first.pid}/task/{first.pid}/children") as stream:
        servers = [int(child) for child in stream.read().split()]
    assert servers
    for server in servers:
        os.kill(server, signal.SIGKILL)
    _, err = first.communicate(timeout=HANGS)
    assert first.returncode == 1 and "Traceback" not in err
    assert "error: The Prefect server must answer during the run" in err
    second = program("run", tiny, *UNTIL)
    out, err = second.communicate(timeout=HANGS)
    assert second.returncode == 0, err
    assert "bank: resumed" in err or "all 3 stages" in out


# -- inside a stage ----------------------------------------------------------------------------------------------------


def on_the_cpu() -> None:
    torch.empty(2**46)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation")


def of_python() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("stage", "cause", "said", "remedies"),
    [
        ("teacher", on_the_cpu, "allocate", ["accumulate", "inference_batch"]),
        ("evaluation", on_a_gpu, r"Tried to allocate 20\.00 GiB", ["inference_batch"]),
        ("student", of_python, "MemoryError", ["accumulate"]),
        ("bank", of_python, "MemoryError", []),  # whose batches have a fixed size
    ],
)
def test_memory_that_runs_out_names_what_helps_and_keeps_what_was_saved(
    tmp_path, monkeypatch, stage, cause, said, remedies
):
    recipe = load("nfm-digits")
    store, node = Store(tmp_path), build(recipe)[stage]

    def run(job):
        job.saved(3, 10, "images")
        cause()

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    with pytest.raises(StageFailed, match=rf"{stage} ran out of memory \(.*{said}.*\)") as raised:
        execute(node, {}, store, recipe.compute)
    named = [word for word in ("accumulate", "inference_batch") if word in str(raised.value)]
    assert named == remedies and "\n" not in str(raised.value) and raised.value.__cause__ is not None
    assert plan({stage: node}, store)[0].action == "resume"


def test_other_errors_of_a_stage_stay_what_they_are(tmp_path, monkeypatch):
    error = RuntimeError("a matrix that is singular")

    def run(job):
        raise error

    monkeypatch.setattr(dag.Stage, "module", lambda self: types.SimpleNamespace(run=run))
    with pytest.raises(RuntimeError) as raised:
        execute(build(load("fm-digits"))["data"], {}, Store(tmp_path), load("fm-digits").compute)
    assert raised.value is error


@pytest.mark.parametrize("fail", ["ValueError", "StageFailed", "missing", "timeout"])
def test_an_exception_in_a_rehearsed_stage_is_one_line(flowctl, tiny, monkeypatch, fail):
    """Without Prefect; with it, see tests/flows/test_flow.py."""
    monkeypatch.setenv("FAKES", json.dumps({"student": {"fail": fail}}))
    result = flowctl("run", tiny, "--smoke-test")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in result.output
