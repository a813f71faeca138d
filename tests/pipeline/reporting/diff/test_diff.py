"""Two sides held against each other: what differs, what is shared and why not, and no two protocols in one row."""

import json
from dataclasses import replace

import pytest

from pipeline.engine.dag import build
from pipeline.outputs.results import StudentResult
from pipeline.recipe.changes import changes
from pipeline.recipe.load import load
from pipeline.reporting.diff import ABSENT, Change, diff, of_artifact, of_recipe
from storage.artifact import MANIFEST, Artifact, Provenance, record_files
from storage.atomic import write_json
from storage.store import Store
from tests.pipeline.reporting import finished
from tests.pipeline.reporting.finished import score

TRAINED = StudentResult(images_seen=10, steps=1, loss=0.5, parameters=7, coupling="nfm", transport_cost=1.0)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def publish(store, recipe, stage, result, **provenance):
    """The stage's artifact as if it had been run, without a payload."""
    node = build(recipe, store.home / "cache")[stage]
    folder = store.home / "artifacts" / stage / f"{recipe.name}-{node.fingerprint[:12]}"
    folder.mkdir(parents=True)
    facts = {
        "created": "2026-01-31T09:41:07+00:00",
        "wall_seconds": 1.0,
        "python": "3.12.7",
        "command": ["flowctl"],
        "platform": "Linux",
        "packages": {"torch": "2.9.1", "numpy": "2.3.4"},
        "git_revision": "e9e9",
        "device": "cpu",
        "threads": 2,
    } | provenance
    made = Artifact(
        stage=stage,
        stage_version=node.stage.version,
        name=recipe.name,
        fingerprint=node.fingerprint,
        config={"label_drop": 0.1},
        inputs={r: n.fingerprint for r, n in node.inputs.items()},
        metrics=result.model_dump(mode="json"),
        files=record_files(folder),
        provenance=Provenance(**facts),
    )
    write_json(folder / MANIFEST, made.model_dump(mode="json"))
    return folder


def sides(store, *overrides):
    recipes = load("nfm-digits"), load("nfm-digits", ["name=other", *overrides])
    return [of_recipe(recipe, store) for recipe in recipes]


def test_settings_differ_field_by_field(store):
    sweeps = "evaluation.student=[{nfe: [1]}, {nfe: [2]}]"
    found = diff(*sides(store, "student.training.lr=1e-3", "compute.inference_batch=7", sweeps))
    assert found.settings[0] == Change("student.training.lr", 2e-3, 1e-3)
    assert found.settings[1].path == "evaluation.student" and len(found.settings[1].b) == 2
    assert found.settings[2:] == (Change("compute.inference_batch", 512, 7),)


def test_stages_are_shared_up_to_the_first_that_differs(store):
    found = {
        pair.stage: pair for pair in diff(*sides(store, "student.training.lr=1e-3", "compute.inference_batch=7")).stages
    }
    assert [name for name, pair in found.items() if pair.shared] == ["data", "reference", "teacher", "bank"]
    assert found["student"].why == ("own settings: training.lr",) and found["student"].inputs == ()
    assert found["student"].changes == (Change("training.lr", 2e-3, 1e-3),)
    assert found["pairs"].why == ("reads another student",)
    assert found["onestep"].why == ("reads another student, pairs",)


def test_what_changes_no_result_leaves_all_stages_shared(store):
    found = diff(*sides(store, "compute.inference_batch=7"))
    assert [change.path for change in found.settings] == ["compute.inference_batch"]
    assert all(pair.shared and not pair.why for pair in found.stages)


def test_stages_that_one_side_lacks(store):
    found = diff(of_recipe(load("nfm-digits"), store), of_recipe(load("fm-digits"), store))
    pairs = {pair.stage: pair for pair in found.stages}
    assert pairs["teacher"].b is None and pairs["teacher"].why == ("A alone has it",)
    assert pairs["student"].why[-1] == "A alone reads bank"
    assert "student.coupling.kind" in [change.path for change in found.settings]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["stages"][2]["b"] is None


def test_files_outside_the_store_are_the_last_explanation(store):
    a, b = sides(store)
    data = replace(b.stages["data"], fingerprint="0" * 64)
    b = replace(b, stages={**b.stages, "data": data})
    assert diff(a, b).stages[0].why == ("the files that it reads differ",)


def test_provenance_is_told_where_both_were_made(store):
    other = load("nfm-digits", ["name=other", "student.label_drop=0.2", "onestep.training.lr=1e-4"])
    for stage in ("student", "onestep"):
        publish(store, load("nfm-digits"), stage, TRAINED)
        publish(store, other, stage, TRAINED, device="cuda (H100)", packages={"torch": "2.13.0", "numpy": "2.3.4"})
    found = diff(of_recipe(load("nfm-digits"), store), of_recipe(other, store))
    assert [origin.to_json() for origin in found.origins] == [
        {"fact": "device", "a": "cpu", "b": "cuda (H100)", "stages": ["student", "onestep"]},
        {"fact": "torch", "a": "2.9.1", "b": "2.13.0", "stages": ["student", "onestep"]},
    ]


def test_a_damaged_artifact_is_said_and_not_read(store):
    folder = publish(store, load("nfm-digits"), "student", TRAINED)
    (folder / MANIFEST).write_text("{}")
    found = {pair.stage: pair for pair in diff(*sides(store)).stages}["student"]
    assert "not a valid manifest" in found.a.damage and found.a.artifact is None and found.shared


def test_an_artifact_brings_what_it_was_made_from(store):
    recipe = load("nfm-digits")
    student, onestep = (publish(store, recipe, stage, TRAINED) for stage in ("student", "onestep"))
    side = of_artifact(onestep)
    assert list(side.stages) == ["student", "onestep"] and side.settings is None
    assert side.stages["student"].artifact.root == student
    found = diff(side, of_recipe(recipe, store))
    assert {pair.stage: pair.shared for pair in found.stages if pair.a} == {"student": True, "onestep": True}
    assert "training" in {change.path.split(".")[1] for change in found.settings}  # of stages that both know


def evaluated(store, found_a, found_b, **b):
    """Two sides whose evaluations hold these scores."""
    made = [
        finished.evaluation(store.home / name, name, found, **more)
        for name, found, more in (("one", found_a, {}), ("two", found_b, b))
    ]
    return [
        replace(side, stages={**side.stages, "evaluation": replace(side.stages["evaluation"], artifact=artifact)})
        for side, artifact in zip(sides(store), made, strict=True)
    ]


def test_scores_of_one_protocol_are_paired(store):
    a = [score("student", 1, 4.0), score("student", 2, 2.0), score("student", 57.5, 1.0, solver="dopri5")]
    b = [score("student", 1, 3.0), score("student", 4, 1.0), score("student", 61.0, 1.5, solver="dopri5")]
    found = diff(*evaluated(store, a, b)).scores
    assert [(row.a.nfe, row.b.nfe, row.ratio) for row in found.paired] == [(1, 1, 0.75), (57.5, 61.0, 1.5)]
    assert [s.nfe for s in found.a] == [2] and [s.nfe for s in found.b] == [4] and not found.protocol
    assert all(row.unequal == () for row in found.paired)


def test_ways_of_sampling_are_never_mixed(store):
    a = [score("student", 2, 4.0), score("student", 4, 5.0, guidance=1.5), score("onestep", 1, 1.0)]
    b = [score("student", 2, 3.0, grid="quadratic"), score("student", 4, 1.0), score("student", 1, 1.0)]
    found = diff(*evaluated(store, a, b)).scores
    assert found.paired == () and found.a == tuple(a) and found.b == tuple(b)


def test_another_length_of_training_is_said_in_the_row(store):
    a, b = [score("student", 2, 4.0)], [score("student", 2, 1.0, images_seen=307200)]
    (row,) = diff(*evaluated(store, a, b)).scores.paired
    assert row.unequal == (Change("images_seen", 153600, 307200),) and row.ratio == 0.25
    averages = [score("student", 2, value, ema=ema) for value, ema in ((4.0, "half-life-10"), (5.0, "power-0.1"))]
    found = diff(*evaluated(Store(store.home / "more"), averages, averages[::-1])).scores
    assert [(row.a.protocol["ema"], row.ratio) for row in found.paired] == [("half-life-10", 1), ("power-0.1", 1)]
    unknown = [score("student", 2, 4.0, ema="power-0.2")]  # which of two averages is its equal, nobody can say
    assert diff(*evaluated(Store(store.home / "last"), averages, unknown)).scores.paired == ()


def test_numbers_of_two_protocols_stand_apart(store):
    a, b = [score("student", 2, 4.0)], [score("student", 2, 1.0, n_fake=10_000, seed=3)]
    found = diff(*evaluated(store, a, b)).scores
    assert found.paired == () and found.a == tuple(a) and found.b == tuple(b)
    assert found.protocol == (Change("n_fake", 5000, 10_000), Change("seed", 0, 3))
    tree = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert tree["paired"] == [] and tree["apart"]["b"][0]["value"] == 1.0


def test_one_evaluation_alone(store):
    a, b = evaluated(store, [score("student", 2, 4.0)], [score("student", 2, 4.0)])
    assert [s.value for s in diff(a, sides(store)[1]).scores.a] == [4.0]
    assert diff(sides(store)[0], b).scores.paired == ()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"x": {"y": 1}}, {"x": {"y": 1.0}}, []),
        ({"x": True}, {"x": 1}, [Change("x", True, 1)]),
        ({"x": None}, {}, [Change("x", None, ABSENT)]),
        ({"x": [{"y": 1}, {"y": 2}]}, {"x": [{"y": 1}, {"y": 3}]}, [Change("x[1].y", 2, 3)]),
        ({"x": (1, 2)}, {"x": [1, 2]}, []),
        ({"x": [1, 2]}, {"x": [1]}, [Change("x", [1, 2], [1])]),
        ({"x": {"y": 1}}, {"x": None}, [Change("x", {"y": 1}, None)]),
    ],
)
def test_trees(a, b, expected):
    assert changes(a, b) == expected


def test_a_side_without_the_field_is_left_out():
    assert Change("x", None, ABSENT).to_json() == {"path": "x", "a": None}
