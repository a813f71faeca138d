"""What a tracker is given, and that nothing of a tracker reaches the run."""

import logging
import re
import threading
from types import SimpleNamespace

import pytest

from flows.session.trackers import _follow
from storage.store import Store
from tests.flows.session.trackers.conftest import LAST
from tests.pipeline.reporting.finished import score


class Notes:
    """A tracker that notes all that it is given, by id; `started` lists each start."""

    def __init__(self):
        self.started, self.runs = [], {}

    def __call__(self):
        return _Noting(self)


class _Noting:
    def __init__(self, notes):
        self.notes = notes

    def start(self, subject, id):
        id = id or f"{subject.stage}-{len(self.notes.started)}"
        self.notes.started.append((id, subject))
        self.run = self.notes.runs.setdefault(id, {"curves": [], "pictures": [], "files": [], "ends": []})
        return id

    def curves(self, lines):
        self.run["curves"] += lines

    def picture(self, path, images):
        self.run["pictures"].append((path.name, images))

    def results(self, numbers, scores):
        self.run |= {"numbers": numbers, "scores": scores}

    def file(self, path):
        self.run["files"].append(path.name)

    def end(self, ending):
        self.run["ends"].append(ending)


@pytest.fixture
def notes(run, monkeypatch):
    notes = Notes()
    monkeypatch.setitem(_follow.KINDS, "mlflow", (notes, ("MLFLOW_TRACKING_URI",)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "anywhere")
    return notes


def images_of(curves):
    return [line["images"] for line in curves]


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, []),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, ["mlflow"]),
        ({"WANDB_PROJECT": "mine"}, ["wandb"]),
        ({"WANDB_MODE": "offline"}, ["wandb"]),
        ({"WANDB_PROJECT": "mine", "WANDB_MODE": "disabled"}, []),
    ],
)
def test_the_environment_switches_trackers_on(run, environment, named, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _follow.packages() == named


def test_each_stage_that_runs_is_a_run(run, notes):
    session = run()
    assert sorted(subject.stage for _, subject in notes.started) == sorted(session.nodes)
    runs = {subject.stage: notes.runs[id] for id, subject in notes.started}
    assert all(run["ends"] == ["finished"] for run in runs.values())
    student = runs["student"]
    assert images_of(student["curves"]) == [10, 20, 30, LAST]
    assert student["pictures"] == [(f"images-{LAST:012d}.png", LAST)] and student["numbers"]["loss"] == 0.5
    assert [(value.name, value.nfe, value.value) for value in runs["evaluation"]["scores"]] == [
        ("FD-classifier/student/euler uniform grid", 1, 9.0),
        ("FD-classifier/student/euler quadratic grid", 2, 4.5),
    ]
    assert runs["evaluation"]["pictures"] == [("samples.png", 0)] and runs["report"]["files"] == ["report.html"]
    subjects = {subject.stage: subject for _, subject in notes.started}
    assert subjects["student"].parameters["student.training.lr"] == 0.1 and subjects["student"].name == "tiny student"
    run()
    assert len(notes.started) == len(session.nodes)  # all reused


def test_each_sampler_has_a_name_of_its_own_that_trackers_take():
    best = "best of 10 points by FID of 2,500 samples (heun, 8 calls)"
    settings = [{"temperature": 1.0}, {"temperature": 1.1}, {"guidance": 2.0}, {"ema": best}, {"grid": "quadratic"}]
    scores = [score("student", nfe, 1.0, **setting) for setting in settings for nfe in (1, 2)]
    artifact = SimpleNamespace(stage="evaluation", metrics={"scores": [one.model_dump(mode="json") for one in scores]})
    values = _follow._scores(artifact)
    names = list(dict.fromkeys(value.name for value in values))
    assert [(value.name, value.nfe) for value in values] == [(name, nfe) for name in names for nfe in (1, 2)]
    assert len(names) == len(settings) and all(re.fullmatch(r"[/\w.\- :]+", name) for name in names)


def test_a_resumed_stage_continues_its_run_and_no_point_is_sent_twice(run, notes):
    run(until="student", fail_at=30)
    assert notes.runs[notes.started[-1][0]]["ends"] == ["failed"]
    run(until="student")
    (first, _), (second, _) = [item for item in notes.started if item[1].stage == "student"]
    assert first == second
    assert notes.runs[first]["ends"] == ["failed", "finished"]
    assert images_of(notes.runs[first]["curves"]) == [10, 20, 30, LAST]


def test_a_rerun_is_a_new_run(run, notes):
    run(until="student")
    run(until="student", force=["student"])
    (first, _), (second, _) = [item for item in notes.started if item[1].stage == "student"]
    assert first != second and images_of(notes.runs[second]["curves"]) == [10, 20, 30, LAST]


@pytest.mark.parametrize("left", ["[1]", "{", '{"mlflow": 3}', '{"mlflow": {"over": false}}'])
def test_a_damaged_note_of_runs_begins_a_new_run(run, notes, left):
    run(until="student", fail_at=30)
    (note,) = Store().home.glob("monitor/student/*/trackers.json")
    note.write_text(left)
    run(until="student")
    (first, _), (second, _) = [item for item in notes.started if item[1].stage == "student"]
    assert first != second and notes.runs[second]["ends"] == ["finished"]


@pytest.mark.parametrize("method", ["start", "curves", "results", "end"])
def test_a_tracker_that_fails_is_warned_of_once_and_ends_no_run(run, notes, method, monkeypatch, caplog):
    def fail(*given):
        raise SystemExit("the tracker\nis gone")

    monkeypatch.setattr(_Noting, method, fail)
    with caplog.at_level(logging.WARNING, "flowctl"):
        session = run()
    assert session.outcomes.keys() == session.nodes.keys() and session.lost_trackers == {"mlflow"}
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_a_tracker_that_hangs_is_left_behind(run, notes, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(_Noting, "start", lambda *given: never.wait())
    monkeypatch.setattr(_follow, "LAST_SECONDS", 0.05)
    session = run()
    never.set()
    assert session.outcomes.keys() == session.nodes.keys() and session.lost_trackers == {"mlflow"}


def test_an_extra_that_is_not_installed_is_named(run, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(_follow.KINDS, "wandb", (_Missing, ("WANDB_MODE",)))
    monkeypatch.setattr(_follow, "find_spec", lambda package: None)
    with caplog.at_level(logging.WARNING, "flowctl"):
        run(until="data")
    assert any("[wandb]" in record.getMessage() for record in caplog.records)


class _Missing(_Noting):
    def __init__(self):
        import flowctl_tracker_that_is_not_installed  # noqa: F401
