"""What is finished can be read without its sources: moved, changed, or in another directory."""

import json
import shutil

import pytest
from PIL import Image

from flows.session.recorded import finished_nodes
from flows.session.runs import RunRecord
from flows.views import comparison
from pipeline.data import sources
from pipeline.data.sources.digest import source_digest
from pipeline.engine.dag import build
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from storage.errors import DataError
from storage.store import Store
from tests.flows.conftest import RECIPE, make_all
from tests.storage.test_bank_reopen import flip

READERS = [("results",), ("results", "--json"), ("report",)]


def fill(folder, colours):
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number, colour in enumerate(colours):
            Image.new("L", (8, 8), colour).save(folder / label / f"{number}.png")


@pytest.fixture
def images(tmp_path, home, monkeypatch):
    """A recipe on a folder that it names relative to the current directory."""
    monkeypatch.setattr(sources, "source_digest", source_digest)  # the true one, not that of the fake stages
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", range(0, 250, 25))
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.replace("{source: digits}", "{source: images, path: photos, size: 8}"))
    return path


def record(recipe, store):
    """A run on record, as `flowctl run` writes it."""
    run = RunRecord(store.home, recipe.model_dump(mode="json"), outline(plan(build(recipe), store)), None)
    run.end("done")


def fingerprints(nodes):
    return {name: node.fingerprint for name, node in nodes.items()}


@pytest.mark.parametrize("fate", ["moved", "changed", "elsewhere"])
def test_every_command_but_run_and_plan_reads_what_the_run_recorded(images, tmp_path, flowctl, fate, monkeypatch):
    recipe = load(str(images))
    session = make_all(recipe)
    record(recipe, session.store)
    before = {words: flowctl(*words, str(images)).stdout for words in READERS}
    if fate == "moved":
        (tmp_path / "photos").rename(tmp_path / "other")
    elif fate == "changed":
        fill(tmp_path / "photos", range(1, 200, 25))
    else:
        (tmp_path / "away").mkdir()
        monkeypatch.chdir(tmp_path / "away")
    for name in (str(images), "tiny"):
        for words in READERS:
            result = flowctl(*words, name)
            assert (result.exit_code, result.stdout) == (0, before[words]), result.stderr
        stages = json.loads(flowctl("diff", name, name, "--json").stdout)["stages"]
        assert "absent" not in json.dumps(stages) and stages
        assert comparison.find(comparison.requests([name])[0], session.store) is not None
    assert fingerprints(finished_nodes(recipe, session.store)) == fingerprints(session.nodes)
    if fate == "changed":
        assert build(recipe)["data"].fingerprint != session.nodes["data"].fingerprint
    else:
        result = flowctl("plan", str(images))
        assert result.exit_code == 2 and str((tmp_path / "away" if fate == "elsewhere" else tmp_path) / "photos") in (
            result.stderr
        )


@pytest.mark.parametrize("fate", ["moved", "changed"])
def test_a_repair_needs_the_sources_for_the_stage_alone_that_reads_them(images, tmp_path, flowctl, fate):
    session = make_all(load(str(images)))
    record(session.recipe, session.store)
    if fate == "moved":
        (tmp_path / "photos").rename(tmp_path / "other")
    else:
        fill(tmp_path / "photos", range(1, 200, 25))
    files = {
        stage: session.store.find(stage, session.nodes[stage].fingerprint).path("payload.txt")
        for stage in ("data", "teacher")
    }
    flip(files["teacher"])
    assert flowctl("verify", "--repair").exit_code == 0
    flip(files["data"])
    result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and "No known recipe" not in result.stdout
    assert flowctl("verify").exit_code == 1 and files["data"].exists()


def test_a_copied_store_answers_without_the_sources(images, tmp_path, flowctl, monkeypatch):
    session = make_all(load(str(images)))
    record(session.recipe, session.store)
    name = f"student/tiny-{session.nodes['student'].fingerprint[:12]}"
    asked = [*READERS, ("runs", "--json"), ("list",), ("verify",), ("show", name), ("diff", "tiny", name, "--json")]
    before = [flowctl(*words, *["tiny"] * (words in READERS)) for words in asked]
    other = tmp_path / "another machine"
    other.mkdir()
    session.store.home.rename(other / "store")
    shutil.rmtree(tmp_path / "photos")
    images.unlink()
    monkeypatch.chdir(other)
    monkeypatch.setenv("FLOWCTL_HOME", str(other / "store"))
    for words, result in zip(asked, before, strict=True):
        after = flowctl(*words, *["tiny"] * (words in READERS))
        assert (after.exit_code, result.exit_code) == (0, 0), after.stderr
        assert after.stdout == result.stdout.replace(str(session.store.home), str(other / "store"))
    assert flowctl("plan", "tiny").exit_code == 2


def test_the_recipes_own_run_comes_before_a_later_one_of_another(images, tmp_path):
    """Its results are those of its own images, whatever another recipe has read from the same folder since."""
    recipe, store = load(str(images)), Store()
    store.prepare()
    first = build(recipe)
    record(recipe, store)
    fill(tmp_path / "photos", range(1, 200, 25))
    other = recipe.model_copy(update={"name": "other"})
    second = build(other)
    record(other, store)
    shutil.rmtree(tmp_path / "photos")
    assert fingerprints(finished_nodes(recipe, store)) == fingerprints(first)
    for name in ("other", "third"):  # which no run has recorded, with settings that two have
        nodes = finished_nodes(recipe.model_copy(update={"name": name}), store)
        assert fingerprints(nodes) == fingerprints(second) != fingerprints(first)


def test_the_latest_run_of_the_same_settings_counts(images, tmp_path):
    recipe, store = load(str(images)), Store()
    store.prepare()
    first = build(recipe)
    record(recipe, store)
    other = load(str(images), ["data.test_fraction=0.5"])
    fill(tmp_path / "photos", range(1, 200, 25))
    record(other, store)
    assert fingerprints(finished_nodes(recipe, store)) == fingerprints(first)
    second = build(recipe)
    record(recipe, store)
    shutil.rmtree(tmp_path / "photos")
    assert fingerprints(finished_nodes(recipe, store)) == fingerprints(second) != fingerprints(first)
    with pytest.raises(DataError) as error:
        finished_nodes(load(str(images), ["data.test_fraction=0.4"]), store)  # no run read it
    assert error.value.value == str(tmp_path / "photos")
