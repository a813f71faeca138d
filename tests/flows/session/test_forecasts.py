"""What is left of a run: the running stage by its rate, later ones by the plan."""

import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from flows.session.forecasts import complete, counted, learn, run_left, stage_left, stage_times, stage_times_if_known
from flows.session.recording import recording, run_stages
from flows.session.runs import RunRecord
from flows.session.session import Session
from flows.session.words import basis, ending
from pipeline.engine.execute import Outcome
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from pipeline.runtime.timings import Timings
from storage.errors import InputError

TRAINING = {"stage": "student", "action": "run", "seconds": 100.0, "training_seconds": 90.0}
OTHER = {"stage": "evaluation", "action": "run", "seconds": 50.0, "training_seconds": 0.0}


@pytest.mark.parametrize(
    ("entry", "unit", "seconds_left", "elapsed", "left"),
    [
        (TRAINING, "images", 40.0, 20.0, 50.0),  # the rate counts, and the 10 s that follow the training
        (TRAINING, None, None, 20.0, 80.0),  # no progress yet
        (TRAINING, "figures", 1.0, 95.0, 5.0),
        (OTHER, "samples", 3.0, 20.0, 30.0),  # 3 s are of one sampler alone
        (OTHER, "samples", 3.0, 60.0, 3.0),  # slower than planned
        ({"stage": "bank", "action": "run"}, "shards", 7.0, 1.0, 7.0),
        ({"stage": "bank", "action": "run"}, None, None, None, None),
    ],
)
def test_what_is_left_of_a_stage(entry, unit, seconds_left, elapsed, left):
    assert stage_left(entry, unit, seconds_left, elapsed) == left


def test_what_is_left_of_a_run():
    plan = [
        {"stage": "data", "action": "reuse"},
        {**TRAINING, "stage": "teacher"},
        TRAINING,
        {**OTHER, "action": "fetch", "stage": "pairs"},
        OTHER,
    ]
    assert run_left(plan, {"student": 30.0}, {"teacher"}) == 80.0
    assert run_left(plan, {"student": None}, {"teacher"}) is None
    assert run_left([*plan, {"stage": "report", "action": "run"}], {"student": 1.0}, {"teacher"}) is None
    assert run_left(plan, {}, {"teacher", "student", "evaluation"}) == 0.0


def test_the_end_has_a_date_unless_it_is_today():
    noon = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))
    assert ending(3900, noon) == "at 13:05 (in 1 h 05 min)"
    assert ending(86400, noon).startswith("on 2026-03-02 at 12:00")


def test_a_time_is_called_what_most_of_it_is():
    assert [basis(share) for share in (1.0, 0.95, 0.5, 0.05, 0.0)] == [
        "measured", "measured", "50% measured", "estimated", "estimated",
    ]  # fmt: skip


def test_a_run_gets_its_times_once_the_images_are_counted(tmp_path):
    recipe = load("fm-digits", ["data.classes=[0, 1]", "student.network.base=16", "compute.device=cpu"])
    session = Session.open(recipe, until="student", home=tmp_path)
    entries = outline(plan(session.nodes, session.store))
    session.record = RunRecord(tmp_path, recipe.model_dump(mode="json"), entries, None)
    complete(session, {"train": 280, "test": 70, "channels": 1, "size": 8, "classes": ("0", "1")})
    session.record.end("stopped")
    (student,) = (entry for entry in session.record.facts["plan"] if entry["stage"] == "student")
    assert 0 < student["training_seconds"] < student["seconds"] and student["measured"] == 0


def test_no_other_trouble_with_times_stops_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("flows.session.forecasts.stage_times", Mock(side_effect=OSError(28, "No space left")))
    assert stage_times_if_known(Session.open(load("fm-digits"), home=tmp_path), ()) == {}
    assert "OSError" in caplog.text


TOO_DEEP = "student.network.multipliers=[1, 1, 1, 1, 1]"  # 8x8 images cannot be halved four times


GUIDED = ["data.labels=false", "reference.extractor=pixels", "teacher.label_drop=0", "student.label_drop=0.1"]
GUIDED_PAIRS = [*GUIDED, "pairs.guidance=2"]
GUIDED_QUALITY = [*GUIDED, "student.quality={nfe: 4, guidance: 2}"]
GUIDED_SAMPLES = [*GUIDED, "evaluation.student=[{solver: euler, grid: uniform, nfe: [4], guidance: 2}]"]


DOES_NOT_FIT = {
    "images known": ([TOO_DEEP], []),
    "images to be counted": ([TOO_DEEP, "data.classes=[0, 1]"], ["data"]),
    "pairs guided without classes": (GUIDED_PAIRS, []),
    "quality guided without classes": (GUIDED_QUALITY, []),
    "samples guided without classes": (GUIDED_SAMPLES, []),
}


@pytest.mark.parametrize(("overrides", "done"), DOES_NOT_FIT.values(), ids=DOES_NOT_FIT)
def test_what_does_not_fit_the_images_is_refused_before_the_teacher_is_trained(tmp_path, overrides, done):
    session = Session.open(load("nfm-digits", [*overrides, "compute.device=cpu"]), home=tmp_path)
    session.store.prepare()
    with pytest.raises(InputError), recording(session, plan(session.nodes, session.store)):
        run_stages(session)
    assert [folder.name for folder in (tmp_path / "artifacts").iterdir()] == done


def test_a_whitening_too_large_is_refused_before_its_teacher_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.couplings._standard.LARGEST", 10)
    session = Session.open(load("nfm-digits", ["compute.device=cpu"]), home=tmp_path)
    with pytest.raises(InputError):
        stage_times_if_known(session, plan(session.nodes, session.store))


def test_a_source_alone_has_no_data_to_count(tmp_path):
    session = Session.open(load("data-to-data", ["compute.device=cpu"]), until="source", home=tmp_path)
    assert list(session.nodes) == ["source"]
    entries = outline(plan(session.nodes, session.store))
    session.record = RunRecord(tmp_path, session.recipe.model_dump(mode="json"), entries, None)
    artifact = SimpleNamespace(metrics={}, provenance=SimpleNamespace(resumed=0))
    learn(session, session.nodes["source"], Outcome("run", artifact, 1.0, Timings()))
    session.record.end("done")
    assert counted(session) is None


def test_a_gpu_that_is_not_at_hand_counts_by_its_name(tmp_path):
    """A device with less of everything takes longer; this machine's measured rates are another device's."""
    session = Session.open(load("fm-digits", ["compute.device=cpu"]), until="student", home=tmp_path)
    steps = plan(session.nodes, session.store)
    new, old = (stage_times(session, steps, gpu)[session.nodes["student"].fingerprint] for gpu in ("H100", "T4"))
    assert 0 < new.seconds < old.seconds and new.measured == 0
