"""`show`: recipes as valid input, artifacts by name and fingerprint."""

import json

import pytest
import yaml

from pipeline.recipe.load import SHIPPED, load, validate
from storage.errors import DamageError, MissingError, UsageError
from tests.flows.conftest import ROOT
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


def test_explain_covers_every_field_and_value(flowctl, home, tiny):
    fields = {field["path"]: field for field in json.loads(flowctl("show", tiny, "--explain", "--json").stdout)}
    assert fields["student.training.lr"]["value"] == 0.1 and fields["student.training.lr"]["default"] == "required"
    assert fields["student.label_drop"]["default"] == "0.1" and "≥ 0" in fields["student.label_drop"]["type"]
    assert fields["evaluation.student[0].nfe"]["value"] == [1, 2]
    assert '"inception"' in fields["reference.extractor"]["type"] and fields["reference.extractor"]["description"]

    def leaves(tree, path=""):
        if isinstance(tree, dict) and tree:
            return {leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}".lstrip("."))}
        if isinstance(tree, list) and tree and isinstance(tree[0], dict):
            return {leaf for number, item in enumerate(tree) for leaf in leaves(item, f"{path}[{number}]")}
        return {path}

    assert set(fields) == leaves(load(tiny).model_dump(mode="json"))
    assert "student.label_drop: 0.1\n" in flowctl("show", tiny, "--explain").stdout


def test_the_schema_has_the_keys_of_every_shipped_recipe(flowctl, home):
    tree = json.loads(flowctl("show", "--schema").stdout)
    for path in SHIPPED.glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        assert set(recipe) <= set(tree["properties"]), path
    assert tree["additionalProperties"] is False and "required" not in tree


def test_the_reference_page_is_up_to_date(flowctl, home):
    page = ROOT / "docs" / "recipe-reference.md"
    assert page.read_text() == flowctl("show", "--reference").stdout, f"flowctl show --reference > {page}"


@pytest.mark.parametrize("words", [(), ("0123456789", "--explain")])
def test_show_needs_a_recipe(flowctl, home, words):
    assert type(fault(flowctl("show", *words))) is UsageError


def test_an_artifact_takes_no_changes(flowctl, finished):
    name = f"teacher/tiny-{finished.nodes['teacher'].fingerprint[:12]}"
    assert type(fault(flowctl("show", name, "--set", "seed=1"))) is UsageError
