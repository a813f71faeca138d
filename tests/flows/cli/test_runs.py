"""`runs`: one row per recipe, seed and settings, with its state, changes and score."""

import csv
import io
import json
import time

import pytest

from flows.session.runs import RunRecord
from flows.session.session import Session
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from storage.errors import UsageError
from tests.flows.cli.test_lazy import _loaded
from tests.flows.conftest import make_all
from tests.flows.faults import fault


def record(recipe, outcome: str | None) -> RunRecord:
    session = Session.open(recipe)
    run = RunRecord(
        session.store.home, recipe.model_dump(mode="json"), outline(plan(session.nodes, session.store)), None
    )
    if outcome is not None:
        run.end(outcome)
    return run


@pytest.fixture
def recorded(tiny, monkeypatch):
    """Five runs of four kinds: stopped and then done, failed with another rate, running at seed 1, killed at seed 2."""
    clock, strftime = iter(range(1, 9)), time.strftime
    monkeypatch.setattr(
        time, "strftime", lambda form, *moment: strftime(form, *moment) if moment else f"20260101T00000{next(clock)}"
    )
    make_all(load(tiny))
    record(load(tiny), "failed: Stopped (SIGTERM)")
    record(load(tiny), "7 run")
    record(load(tiny, ["student.training.lr=0.2", "compute.device=cpu"]), "failed: Stage student failed")
    running = record(load(tiny, ["seed=1"]), None)
    record(load(tiny, ["seed=2"]), None).release()
    yield
    running.end("over")


def rows(flowctl, *words):
    return json.loads(flowctl("runs", *words, "--json").stdout)


def test_runs_have_state_changes_score_and_time(flowctl, recorded):
    done, failed, running, killed = rows(flowctl)
    assert [row["state"] for row in (done, failed, running, killed)] == ["done", "failed", "running", "killed"]
    assert [(row["name"], row["seed"]) for row in (done, running)] == [("tiny", 0), ("tiny@1", 1)]
    assert done["changes"] == {} == running["changes"] and failed["changes"] == {"student.training.lr": 0.2}
    assert (done["metric"], done["score"], done["model"], done["nfe"]) == ("FD-classifier", 4.5, "student", 2)
    assert done["seconds"] > 0 and failed["score"] is None


def test_a_metric_that_no_run_has_is_refused_and_the_nearest_named(flowctl, recorded):
    assert rows(flowctl, "--metric", "FD-classifier")[0]["score"] == 4.5
    refused = flowctl("runs", "--metric", "FD-clasifier")
    assert refused.exit_code != 0 and "FD-classifier" in refused.output


@pytest.mark.parametrize(
    ("condition", "seeds"),
    [
        ("state=done", [0]),
        ("state==done", [0]),
        ("seed==2", [2]),
        ("began>2001-01-01", [0, 0, 1, 2]),
        ("began<2001-01-01T00:00:00", []),
        ("state!=done", [0, 1, 2]),
        ("seed>=1", [1, 2]),
        ("score<5", [0]),
        ("score<4", []),
        ("student.training.lr=2e-1", [0]),
        ("name=tiny@2", [2]),
    ],
)
def test_where(flowctl, recorded, condition, seeds):
    assert [row["seed"] for row in rows(flowctl, "--where", condition)] == seeds


def test_sort_and_formats(flowctl, recorded):
    assert [row["seed"] for row in rows(flowctl, "--sort", "-seed")] == [2, 1, 0, 0]
    assert rows(flowctl, "--sort", "score")[0]["score"] == 4.5
    assert rows(flowctl, "--sort", "-student.training.lr")[0]["state"] == "failed"
    table = list(csv.DictReader(io.StringIO(flowctl("runs", "--csv").stdout)))
    assert [row["state"] for row in table] == ["done", "failed", "running", "killed"]
    assert table[1]["changes"] == "student.training.lr=0.2"
    text = flowctl("runs").stdout.splitlines()
    assert len(text) == 5 and "student.training.lr=0.2" in text[2] and "FD-classifier 4.5" in text[1]


def test_a_shipped_recipe_is_compared_with_itself(flowctl, home):
    record(load("nfm-digits", ["student.label_drop=0.3"]), "7 run")
    (row,) = rows(flowctl)
    assert row["changes"] == {"student.label_drop": 0.3}


@pytest.mark.parametrize(
    "words",
    [
        ("--where", "state"),
        ("--where", "colour=red"),
        ("--where", "score<["),
        ("--where", "name=@"),
        ("--where", "score<many"),
        ("--where", "began<yesterday"),
        ("--sort", "colour"),
    ],
)
def test_wrong_usage(flowctl, recorded, words):
    assert type(fault(flowctl("runs", *words))) is UsageError


def test_runs_need_no_torch(recorded):
    assert _loaded("runs", heavy={"torch", "prefect", "scipy", "sklearn", "matplotlib"}) == set()
