"""`show`: recipes as valid input, artifacts by name and fingerprint."""

import json

import pytest
import yaml

from pipeline.recipe.load import load, validate
from storage.errors import DamageError, MissingError
from tests.flows.faults import fault


def test_a_shown_recipe_is_valid_input(flowctl, home, tiny):
    text = flowctl("show", tiny, "--set", "seed=7").stdout
    assert validate(yaml.safe_load(text), "shown") == load(tiny, ["seed=7"])
    assert json.loads(flowctl("show", tiny, "--json").stdout) == load(tiny).model_dump(mode="json")


def test_show_finds_an_artifact_by_name_or_fingerprint(flowctl, finished):
    node = finished.nodes["teacher"]
    by_name = flowctl("show", f"teacher/tiny-{node.fingerprint[:12]}")
    assert json.loads(by_name.stdout)["fingerprint"] == node.fingerprint
    assert flowctl("show", node.fingerprint[:8]).stdout == by_name.stdout


@pytest.mark.parametrize("name", ["teecher/x", "0123456789", "nfm-digts"])
def test_an_unknown_name(flowctl, finished, name):
    error = fault(flowctl("show", name))
    assert type(error) is MissingError and error.value == name


def test_a_damaged_artifact_is_not_an_unknown_one(flowctl, finished):
    artifact = finished.store.find("teacher", finished.nodes["teacher"].fingerprint)
    (artifact.root / "artifact.json").write_text("{}")
    assert isinstance(fault(flowctl("show", f"teacher/{artifact.root.name}")), DamageError)
