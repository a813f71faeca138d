"""`results`: scores with their protocols."""

import json

from pipeline.recipe.load import load
from storage.errors import MissingError, UsageError
from tests.flows.faults import fault


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
    assert "FD-classifier 1.5" in text and "grid quadratic" in text
    assert [line.split()[6] for line in text.splitlines() if line.startswith("tiny ")] == ["calls", "calls+seconds"]
    assert max(map(len, text.splitlines())) <= 100


def test_results_are_chosen_and_sorted(flowctl, finished, tiny):
    (best,) = json.loads(flowctl("results", tiny, "--best", "--json").stdout)
    assert (best["nfe"], best["value"]) == (2, 4.5)
    for sort, nfes in (("value", [2, 1]), ("-value", [1, 2]), ("nfe", [1, 2]), ("-nfe", [2, 1])):
        scores = json.loads(flowctl("results", tiny, "--sort", sort, "--json").stdout)
        assert [score["nfe"] for score in scores] == nfes
    assert len(json.loads(flowctl("results", "--metric", "FD-classifier", "--json").stdout)) == 2
    assert type(fault(flowctl("results", "--metric", "FDI"))) is MissingError
    assert type(fault(flowctl("results", "--sort", "colour"))) is UsageError


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
    assert "\nbits per dimension\n" in text and "3.210" in text and "tolerance 1e-05" in " ".join(text.split())
    assert "n_fake 16" in text.split("protocol ")[1]  # shared by the scores; the likelihood has no samples


def test_overrides_without_a_recipe_are_refused(flowctl, finished):
    error = fault(flowctl("results", "--set", "seed=1"))
    assert type(error) is UsageError and error.value == "seed=1"


def test_results_of_a_recipe_without_any(flowctl, tiny):
    error = fault(flowctl("results", tiny))
    assert type(error) is MissingError and error.value == tiny


def test_no_results_is_no_error(flowctl, home):
    assert json.loads(flowctl("results", "--json").stdout) == []
    assert flowctl("results").exit_code == 0
