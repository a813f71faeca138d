"""Why a stage is to be run: what differs from the nearest artifact that has anything to do with it."""

import pytest

from pipeline.engine import dag
from pipeline.engine.plan import plan
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.load import load
from storage.artifact import Artifact
from storage.store import Store
from tests.storage.test_store import PROVENANCE


@pytest.fixture
def store(tmp_path):
    """With the images of digits, and the teacher of nfm-digits."""
    store = Store(tmp_path)
    for node in list(dag.build(load("nfm-digits")).values())[:3]:
        out = store.work(node.name, node.fingerprint) / "out"
        out.mkdir(parents=True)
        store.publish(
            Artifact(
                stage=node.name,
                stage_version=node.stage.version,
                name=node.label,
                fingerprint=node.fingerprint,
                config=fingerprint_fields(node.config),
                inputs={role: made.fingerprint for role, made in node.inputs.items()},
                metrics={},
                files=(),
                provenance=PROVENANCE,
            ),
            out,
        )
    return store


def reasons(store, name, *overrides):
    recipe = load(name, overrides)
    return {step.node.name: step.reason for step in plan(dag.build(recipe), store)}


def test_a_recipe_is_not_explained_by_one_that_it_has_nothing_in_common_with(store, monkeypatch):
    monkeypatch.setattr("pipeline.data.sources.source_digest", lambda config, cache: config.source)
    found = reasons(store, "nfm-cifar10")
    assert set(found.values()) == {"no artifact yet"} and "teacher" in found


def test_it_is_by_one_of_its_name_or_of_its_data(store):
    assert reasons(store, "nfm-digits", "data.seed=7")["data"] == "seed: 0 -> 7"
    assert reasons(store, "nfm-digits", "data.seed=7")["teacher"].startswith("input data: ")
    assert reasons(store, "nfm-digits", "name=other", "teacher.width=32")["teacher"].startswith("width: ")
    assert reasons(store, "nfm-digits", "name=other", "data.seed=7")["teacher"] == "no artifact yet"
