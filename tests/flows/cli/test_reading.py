"""`plan`, `list`, `show`, `results`, `verify` on a store: what they say and the shape of their JSON."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.recipe.load import load, validate

STAGES = ["data", "reference", "teacher", "bank", "student", "evaluation", "report"]


def test_plan_says_what_is_made_and_why(flowctl, finished, tiny):
    result = flowctl("plan", tiny, "--set", "student.label_drop=0.2", "--force", "reference", "--json")
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert all({"stage", "action", "reason", "fingerprint"} <= set(step) for step in steps)
    assert [step["stage"] for step in steps if "source" in step] == ["data"]
    assert [step["stage"] for step in steps] == STAGES
    actions = {step["stage"]: step["action"] for step in steps}
    assert actions == dict.fromkeys(STAGES, "reuse") | dict.fromkeys(
        ["reference", "student", "evaluation", "report"], "run"
    )
    reasons = {step["stage"]: step["reason"] for step in steps}
    assert reasons["student"] == "label_drop: 0.1 -> 0.2" and reasons["reference"] == "forced by --force"


def test_plan_until_leaves_out_what_is_not_needed(flowctl, home, tiny):
    steps = json.loads(flowctl("plan", tiny, "--until", "bank", "--json").stdout)
    assert [step["stage"] for step in steps] == ["data", "teacher", "bank"]


def test_plan_estimates_what_is_ahead(flowctl, home, tiny, monkeypatch):
    from types import SimpleNamespace

    figures = SimpleNamespace(parameters=1234567, steps=2, memory_bytes=5e9, disk_bytes=1e6)
    monkeypatch.setattr("pipeline.training.estimate.estimate", lambda node, measured: figures)
    text = flowctl("plan", tiny, "--until", "teacher").stdout
    assert "1,234,567" in text and "5 GB" in text and "2 MB" in text


def test_shown_recipe_is_valid_input_again(flowctl, home, tiny):
    text = flowctl("show", tiny, "--set", "seed=7").stdout
    assert validate(yaml.safe_load(text), "shown") == load(tiny, ["seed=7"])
    assert json.loads(flowctl("show", tiny, "--json").stdout) == load(tiny).model_dump(mode="json")


def test_show_finds_an_artifact_by_name_or_fingerprint(flowctl, finished):
    node = finished.nodes["teacher"]
    by_name = flowctl("show", f"teacher/tiny-{node.fingerprint[:12]}")
    assert json.loads(by_name.stdout)["fingerprint"] == node.fingerprint
    assert flowctl("show", node.fingerprint[:8]).stdout == by_name.stdout


def test_list_has_recipes_and_artifacts_with_sizes(flowctl, finished):
    text = flowctl("list").stdout
    assert "nfm-digits" in text and f"teacher/tiny-{finished.nodes['teacher'].fingerprint[:12]}" in text
    assert "7 artifacts" in text


def test_report_says_where_the_page_lies(flowctl, finished, tiny, monkeypatch):
    shown = []
    monkeypatch.setattr("typer.launch", shown.append)
    page = Path(flowctl("report", tiny).stdout.strip())
    assert page.is_file() and page.suffix == ".html" and not shown
    assert flowctl("report", tiny, "--open").exit_code == 0 and shown == [page.as_uri()]


def test_report_before_there_is_one(flowctl, home, tiny):
    result = flowctl("report", tiny)
    assert result.exit_code == 2 and "flowctl run" in result.stderr


def test_results_are_scores_with_their_protocol(flowctl, finished, tiny):
    scores = json.loads(flowctl("results", tiny, "--json").stdout)
    assert [set(score) for score in scores] == [
        {
            "model",
            "solver",
            "nfe",
            "metric",
            "value",
            "protocol",
            "recipe",
            "error",
            "seconds_per_image",
            "front",
            "digest",
            "evaluation",
        }
    ] * 2
    assert [score["front"] for score in scores] == [
        {"calls": True, "seconds": False},  # 9.0 at one call, for as long
        {"calls": True, "seconds": True},
    ]  # as 4.5 at two
    assert scores == json.loads(flowctl("results", "--json").stdout)
    text = flowctl("results").stdout
    assert "floor (two halves of the data): 1.5" in text and "grid quadratic" in text
    assert [line.split()[8] for line in text.splitlines() if line.startswith("tiny ")] == ["calls", "calls+seconds"]


def test_results_of_different_protocols_stand_apart(flowctl, finished, tiny, monkeypatch):
    from tests.flows.conftest import make_all
    from tests.flows.fakes import RESULTS

    other = RESULTS["evaluation"].model_copy(update={"protocol": "fedcba9876543210"})
    monkeypatch.setitem(RESULTS, "evaluation", other)
    make_all(load(tiny, ["seed=1"]))
    text = flowctl("results").stdout
    assert text.count("RECIPE") == 2 and "protocol fedcba9876543210" in text and "protocol 0123456789abcdef" in text


def test_results_tell_the_likelihood(flowctl, tiny, monkeypatch):
    from pipeline.outputs.results import LikelihoodResult
    from tests.flows.conftest import make_all
    from tests.flows.fakes import RESULTS

    found = LikelihoodResult(
        bits_per_dim=3.21, standard_error=0.012, probe_error=0.001, images=64, probes=2, tolerance=1e-5, calls=101.5
    )
    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update={"likelihood": found}))
    make_all(load(tiny))
    *scores, bits = json.loads(flowctl("results", "--json").stdout)
    assert len(scores) == 2 and bits.keys() == scores[0].keys()
    assert (bits["metric"], bits["value"], bits["error"], bits["nfe"]) == ("bits per dimension", 3.21, 0.012, 101.5)
    text = flowctl("results", tiny).stdout
    (line,) = (line for line in text.splitlines() if "bits per dimension" in line)
    assert "3.210" in line and line.endswith("images 64, probes 2, tolerance 1e-05, dequantised uniformly")
    assert "n_fake 16" in text.splitlines()[-2]  # what the scores share, the likelihood aside


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("results", "--set", "seed=1"), "flowctl results RECIPE --set"),
        (("compare", "a", "b", "--json", "--markdown"), "'--json and --markdown'. Leave one"),
    ],
)
def test_options_that_would_be_ignored_are_refused(flowctl, finished, words, said):
    result = flowctl(*words)
    assert result.exit_code == 2 and said in result.stderr


def test_no_results_is_no_error(flowctl, home):
    assert json.loads(flowctl("results", "--json").stdout) == []
    assert "No results yet" in flowctl("results").stdout


def test_verify_names_the_damaged_file(flowctl, finished, tiny):
    assert flowctl("verify").stdout == "7 artifacts, 9 files: every digest holds.\n"
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    (root / "payload.txt").write_text("teacher ['dada']\n")  # as long as what was there
    for words in (("verify",), ("verify", tiny)):
        result = flowctl(*words)
        assert result.exit_code == 1
        assert f"damaged: {root}: payload.txt: SHA-256 differs" in result.stdout
        assert result.stderr.startswith("error: 1 of 7 artifacts damaged")
    (root / "artifact.json").write_text("{}")
    assert "artifact.json: not a valid manifest" in flowctl("verify").stdout
