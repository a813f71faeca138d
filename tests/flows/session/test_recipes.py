"""Recipes by the name of a run: what was recorded is taken wherever a recipe is given."""

import json

import pytest
import yaml

from flows.session import recipes
from flows.session.runs import RunRecord
from flows.session.session import Session
from pipeline.engine.plan import outline, plan
from pipeline.engine.provenance import COMMAND
from pipeline.recipe.load import SHIPPED, InvalidRecipe, load
from storage.errors import MissingError, RecipeError, UsageError
from tests.flows.conftest import make_all
from tests.flows.faults import fault


def record(recipe) -> None:
    """A run of it as `flowctl run` records it."""
    session = Session.open(recipe)
    steps = outline(plan(session.nodes, session.store))
    RunRecord(session.store.home, recipe.model_dump(mode="json"), steps, None).end("7 run")


@pytest.fixture
def mine(home, tiny, monkeypatch):
    """A recipe that was renamed and changed by `--set`, made and on record."""
    recipe = load(tiny, ["name=mine", "student.label_drop=0.3"])
    make_all(recipe)
    record(recipe)
    monkeypatch.chdir(home.parent)
    return recipe


def test_the_name_of_a_run_means_the_recipe_it_recorded(mine):
    assert recipes.load("mine") == mine
    assert recipes.load("mine", ["seed=7"]) == mine.model_copy(update={"seed": 7, "name": "mine@7"})
    assert recipes.load("mine", ["onestep=null", "potentials=null"]) == mine


def test_the_latest_run_of_the_name_counts(mine, tiny, monkeypatch):
    later = load(tiny, ["name=mine", "student.label_drop=0.4"])
    monkeypatch.setattr("flows.session.runs.time.strftime", lambda form: "00010101T000000")  # of another time zone
    record(later)
    assert recipes.load("mine") == later


def test_shipped_names_and_files_come_first(mine, tiny):
    record(load(tiny).model_copy(update={"name": "nfm-digits"}))  # as a file may call itself
    assert recipes.load("nfm-digits") == load("nfm-digits")
    assert recipes.load(tiny) == load(tiny)


def test_a_changed_file_is_not_run_by_the_name_of_a_shipped_recipe(home, tmp_path, monkeypatch):
    """`flowctl results fm-digits` would not be of its runs. One as `flowctl show` prints it is the shipped one."""
    file = tmp_path / "fm-digits.yaml"

    def check(*changes):
        recipes.check_name(str(file), recipes.load(str(file), changes))

    file.write_text(yaml.safe_dump(load("fm-digits", ["seed=3"]).model_dump(mode="json")))
    check("compute.threads=1")
    file.write_text("extends: nfm-digits\n")
    for changes in ([], ["seed=3"]):
        with pytest.raises(RecipeError):
            check(*changes)
    check("name=mine")
    (tmp_path / "link").symlink_to(SHIPPED)
    shipped = str(tmp_path / "link" / "fm-digits.yaml")
    recipes.check_name(shipped, recipes.load(shipped, ["student.label_drop=0.3"]))
    monkeypatch.setenv(COMMAND, "flowctl run fm-digits")  # of the child that runs what its parent has checked
    check()


def test_which_machine_recorded_it_is_not_part_of_it(mine, tiny):
    record(
        load(tiny, ["name=two", "compute={nnodes: 2, node_rank: 1, rendezvous: 'first:29400', inference_batch: 64}"])
    )
    assert recipes.load("two").compute == mine.compute.model_copy(update={"inference_batch": 64})


def test_an_unknown_name_is_answered_with_the_runs_there_are(mine, home):
    for name, remedy in (("foo", f"Runs in {home}: mine"), ("mined", "Did you mean 'mine'?")):
        with pytest.raises(MissingError) as raised:
            recipes.load(name)
        assert raised.value.value == name and remedy in raised.value.remedy


def test_records_that_are_torn_or_without_a_recipe_name_nothing(mine, home, caplog):
    (path,) = (home / "runs").glob("run-*.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"recipe": None}))
    (home / "runs" / "run-9.json").write_text("{torn")
    with pytest.raises(MissingError), caplog.at_level("WARNING", "flowctl"):
        recipes.load("mine")
    assert [str(home / "runs" / "run-9.json") in text for text in caplog.messages] == [True]  # once


def test_a_repair_of_an_older_variant_does_not_change_what_the_name_means(mine, tiny):
    older = load(tiny, ["name=mine", "seed=9"])
    RunRecord(Session.open(older).store.home, older.model_dump(mode="json"), [], None, "repair").end("1 run")
    assert recipes.load("mine") == mine


def test_a_recorded_recipe_that_is_no_longer_valid_says_whence_it_is(mine, home):
    (path,) = (home / "runs").glob("run-*.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"recipe": facts["recipe"] | {"old": 1}}))
    with pytest.raises(InvalidRecipe) as raised:
        recipes.load("mine")
    assert raised.value.value[0].startswith("old: ")


@pytest.mark.parametrize("words", [("plan",), ("run",), ("report",), ("results",)])
def test_commands_find_what_the_run_made(flowctl, mine, words):
    result = flowctl(*words, "mine")
    assert result.exit_code == 0, result.output
    if words[0] in ("plan", "run"):
        assert "run" not in result.stdout.split() and result.stdout.count("reuse") == 7
        changed = flowctl("plan", "mine", "--set", "student.label_drop=0.2").stdout
        assert "label_drop: 0.3 -> 0.2" in changed


def test_show_and_diff_take_the_name_too(flowctl, mine, tiny):
    assert json.loads(flowctl("show", "mine", "--json").stdout) == mine.model_dump(mode="json")
    assert flowctl("diff", "mine", tiny).exit_code == 0
    for words in (("show", "minne"), ("diff", "minne", tiny)):
        assert "'mine'" in fault(flowctl(*words)).remedy


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        (("bank", "inspect", "minne"), MissingError, "minne"),
        (("compare", "mine", "minne"), MissingError, "minne"),
        (("sample", "mine", "--model", "onestep"), UsageError, "onestep"),
        (("export", "mine", "--out", "there", "--model", "onestep"), UsageError, "onestep"),
        (("deploy", "mine"), MissingError, "no PREFECT_API_URL"),
    ],
)
def test_other_commands_take_the_name_too(flowctl, mine, words, kind, value):
    error = fault(flowctl(*words))
    assert type(error) is kind and error.value == value


def test_a_name_means_one_seed(flowctl, tiny, monkeypatch):
    """`tiny` is the recipe's own seed and `tiny@1` its seed 1, whichever ran last."""
    sessions = {}
    for number, overrides in enumerate(([], ["seed=1"])):
        monkeypatch.setattr("flows.session.runs.time.strftime", lambda form, n=number: f"2026010{n + 1}T000000")
        recipe = load(tiny, overrides)
        sessions[recipe.name] = make_all(recipe)
        record(recipe)
    assert list(sessions) == ["tiny", "tiny@1"]
    for name, seed in (("tiny", 0), ("tiny@1", 1), ("tiny@0", 0), (f"{tiny}@1", 1)):
        nodes = sessions[f"tiny@{seed}" if seed else "tiny"].nodes
        assert json.loads(flowctl("show", name, "--json").stdout)["seed"] == seed
        (evaluation,) = {row["evaluation"] for row in json.loads(flowctl("results", name, "--json").stdout)}
        assert evaluation == nodes["evaluation"].fingerprint
        assert f"{nodes['report'].fingerprint[:12]}/report.html" in flowctl("report", name).stdout
        forced = json.loads(flowctl("plan", name, "--force", "student", "--json").stdout)
        assert {step["stage"]: step["fingerprint"] for step in forced} == {
            stage: node.fingerprint for stage, node in nodes.items()
        }
    runs = json.loads(flowctl("compare", "tiny", "tiny@1", "--json").stdout)["runs"]
    assert [(run["recipe"], run["seed"]) for run in runs] == [("tiny", 0), ("tiny@1", 1)]
    removed = flowctl("rm", "tiny@1", "--yes")
    assert removed.exit_code == 0 and flowctl("results", "tiny").exit_code == 0
    assert isinstance(fault(flowctl("results", "tiny@1")), MissingError)
