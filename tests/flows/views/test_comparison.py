"""`compare`: recipes at several seeds, found in the store, asked for, or made by children."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.orchestration import children
from flows.views import comparison
from pipeline.recipe.load import InvalidRecipe, load
from storage.errors import MissingError, UsageError
from storage.store import Store
from tests.flows.conftest import ROOT, make_all, written
from tests.flows.faults import fault

MAKER = """
import sys
from tests.flows import fakes
fakes.install()
from pipeline.recipe.load import load
from tests.flows.conftest import make_all
assert sys.argv[1] == "run" and set(sys.argv[3::2]) <= {"--set"}
make_all(load(sys.argv[2], sys.argv[4::2]))
print("said by the child")
"""


@pytest.fixture
def other(tiny, tmp_path):
    """A second recipe, with a student of its own."""
    path = tmp_path / "other.yaml"
    text = Path(tiny).read_text().replace("name: tiny", "name: other")
    path.write_text(text.replace("coupling: nfm", "coupling: nfm\n  time: {kind: uniform}"))
    return str(path)


@pytest.fixture
def maker(monkeypatch):
    """Children that make a recipe with the fake stages, without Prefect."""
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", MAKER))
    monkeypatch.chdir(ROOT)


def make(recipe, *seeds):
    for seed in seeds:
        make_all(load(recipe, [f"seed={seed}"]))


# -- finding ---------------------------------------------------------------------------------------------------------


def test_recipes_at_their_own_seeds(flowctl, finished, tiny, other, tmp_path):
    make(other, 3)
    result = flowctl("compare", tiny, other, "--plot", tmp_path / "x.png")
    assert result.exit_code == 2 and "other at seed 0" in result.stderr  # seed 3 is another run
    make(other, 0)
    result = flowctl("compare", tiny, other, "--plot", tmp_path / "x.png")
    assert result.exit_code == 0, result.output
    assert "FD-classifier by network calls\n" in result.stdout and f"Plot: {tmp_path / 'x.png'}\n" in result.stdout
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_recipes_at_several_seeds(flowctl, tiny, other, tmp_path, monkeypatch):
    make(tiny, 0, 1, 2)
    make(other, 0, 1, 2)
    result = flowctl("compare", tiny, other, "--seeds", "0,1,2", "--json")
    assert result.exit_code == 0, result.output
    tree = json.loads(result.stdout)
    assert [(run["recipe"], run["seed"]) for run in tree["runs"]] == [
        (name, seed) for name in ("tiny", "other") for seed in range(3)
    ]
    assert {row["seeds"] for row in tree["rows"]} == {3}
    assert {"teacher", "bank", "student", "evaluation"} <= tree["runs"][0]["seconds"].keys()
    assert len({run["fingerprints"]["student"] for run in tree["runs"]}) == 6  # each has trained its own
    assert len({run["fingerprints"]["data"] for run in tree["runs"]}) == 1
    monkeypatch.chdir(tmp_path)
    shown = flowctl("compare", tiny, other, "--seeds", "0,1,2", "--markdown").stdout
    assert "| tiny | student | **9.0 ± 0.0** | **4.5 ± 0.0** |" in shown
    assert (tmp_path / "compare.png").exists()


def test_json_has_stdout_to_itself(flowctl, finished, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert json.loads(flowctl("compare", tiny, "--json").stdout)["runs"]
    assert not list(tmp_path.glob("*.png"))
    result = flowctl("compare", tiny, "--json", "--plot", "asked.svg")
    assert json.loads(result.stdout)["runs"] and (tmp_path / "asked.svg").exists()


def test_overrides_hold_for_all(flowctl, tiny, other):
    changed = ["student.label_drop=0.3"]
    for recipe in (tiny, other):
        make_all(load(recipe, changed))
    words = ("compare", tiny, other, "--json")
    assert flowctl(*words).exit_code == 2 and flowctl(*words, "--set", *changed).exit_code == 0


# -- what is missing -------------------------------------------------------------------------------------------------


def test_what_is_missing_is_told_with_its_commands(flowctl, tiny, other):
    make(tiny, 0, 2)
    result = flowctl("compare", tiny, other, "--seeds", "0,2", "--set", "student.label_drop=0.1")
    error = fault(result)
    assert type(error) is MissingError and error.value == "other at seed 0, other at seed 2"
    for seed in (0, 2):
        assert f"flowctl run {other} --set student.label_drop=0.1 --set seed={seed}" in error.remedy


def test_commands_can_be_pasted(tiny):
    (item,) = comparison.requests([tiny], (), ["evaluation.student=[{nfe: [1, 2]}]"])
    assert item.command == f"flowctl run {tiny} --set 'evaluation.student=[{{nfe: [1, 2]}}]'"


@pytest.mark.parametrize("stage", ["student", "evaluation"])
def test_what_is_damaged_is_missing(flowctl, finished, tiny, stage):
    root = finished.store.find(stage, finished.nodes[stage].fingerprint).root
    (root / "payload.txt").unlink()
    assert f"flowctl run {tiny}" in flowctl("compare", tiny).stderr


def test_a_teacher_that_is_gone_costs_a_figure_only(flowctl, finished, tiny):
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    (root / "artifact.json").unlink()
    (run,) = json.loads(flowctl("compare", tiny, "--json").stdout)["runs"]
    assert "teacher" not in run["seconds"] and run["teacher_bits"] is None


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        (("--seeds", "0,x"), UsageError, "0,x"),
        (("--seeds", "1,1"), UsageError, "1,1"),
        (("--seeds", "-1"), UsageError, "-1"),
        (("--seeds", ""), UsageError, ""),
        (("--plot", "x.gif"), UsageError, "x.gif"),
        (("--json", "--markdown"), UsageError, "--json and --markdown"),
        (("{tiny}",), UsageError, "tiny at seed 0"),
        (("--set", "studnet.seed=1"), InvalidRecipe, None),
    ],
)
def test_wrong_usage_is_told_before_anything_is_made(flowctl, tiny, words, kind, value, monkeypatch):
    monkeypatch.setattr(comparison, "run_children", lambda *given: pytest.fail("a child was started"))
    error = fault(flowctl("compare", tiny, *(word.format(tiny=tiny) for word in words), "--run"))
    assert type(error) is kind and value in (None, error.value)


# -- making ----------------------------------------------------------------------------------------------------------


def test_children_make_what_is_missing_and_nothing_else(flowctl, tiny, other, maker, capfd):
    make(tiny, 0)
    kept = written("student", _student(tiny, 0))
    result = flowctl("compare", tiny, other, "--seeds", "0,1", "--run", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["runs"]) == 4
    assert [line.split("] ")[0] for line in result.stderr.splitlines() if line.startswith("[")] == [
        "[1 of 3",
        "[2 of 3",
        "[3 of 3",
    ]
    assert written("student", _student(tiny, 0)) == kept
    told = capfd.readouterr()
    assert told.err.count("said by the child") == 3 and "child" not in told.out
    again = flowctl("compare", tiny, other, "--seeds", "0,1", "--run", "--json")
    assert again.exit_code == 0 and "[1 of" not in again.stderr


def _student(recipe, seed):
    from flows.session.session import Session

    return Session.open(load(recipe, [f"seed={seed}"])).nodes["student"].fingerprint


def test_a_child_that_fails_ends_it(flowctl, tiny, other, monkeypatch):
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(3)"))
    result = flowctl("compare", tiny, other, "--run")
    error = fault(result)
    assert type(error) is children.ChildFailed and error.retryable and "[2 of 2]" not in result.stderr
    assert f"`flowctl run {tiny}`" in str(error) and "exit code 3" in str(error)


def test_a_child_that_makes_nothing_is_noticed(tiny, monkeypatch):
    monkeypatch.setattr(comparison, "run_children", lambda *given: {})
    with pytest.raises(MissingError) as raised:
        comparison.collect(comparison.requests([tiny]), Store(), run_missing=True)
    assert raised.value.value == "tiny at seed 0"


PROGRAM = """
import sys
from flows.orchestration import children
from flows.cli import main
from tests.flows import fakes
fakes.install()
children.PROGRAM = (sys.executable, "-m", "tests.flows.fakes")
main()
"""


@pytest.mark.slow
def test_the_whole_program_makes_and_compares(home, tiny, other):
    """`flowctl compare --run`, whose children are `flowctl run` with Prefect and the fake stages."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "compare", tiny, other, "--seeds", "0,1", "--run", "--json"],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 4 and done.stderr.count("evaluation: run") == 4
