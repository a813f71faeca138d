"""`results`: scores with their protocols."""

import json

from pipeline.recipe.load import load
from storage.errors import MissingError, UsageError
from tests.flows import fakes
from tests.flows.conftest import make_all
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


def test_results_and_the_end_of_a_run_say_what_the_evaluation_warns_of(flowctl, home, tiny, monkeypatch):
    changed = fakes.RESULTS["evaluation"].model_copy(update={"warnings": ("16 images for 192 features",)})
    monkeypatch.setitem(fakes.RESULTS, "evaluation", changed)
    make_all(load(tiny))
    for command in ("run", "results"):  # the run reuses all
        assert "warning: 16 images for 192 features" in flowctl(command, tiny).stdout


def test_results_are_chosen_and_sorted(flowctl, finished, tiny):
    (best,) = json.loads(flowctl("results", tiny, "--best", "--json").stdout)
    assert (best["nfe"], best["value"]) == (2, 4.5)
    for sort, nfes in (("value", [2, 1]), ("-value", [1, 2]), ("nfe", [1, 2]), ("-nfe", [2, 1])):
        scores = json.loads(flowctl("results", tiny, "--sort", sort, "--json").stdout)
        assert [score["nfe"] for score in scores] == nfes
    assert len(json.loads(flowctl("results", "--metric", "FD-classifier", "--json").stdout)) == 2
    assert type(fault(flowctl("results", "--metric", "FDI"))) is MissingError
    assert type(fault(flowctl("results", "--sort", "colour"))) is UsageError


def test_a_table_that_mixes_time_grids_marks_the_rarer_ones(flowctl, tiny, monkeypatch):
    from tests.flows.conftest import make_all
    from tests.flows.fakes import RESULTS

    score = RESULTS["evaluation"].scores[0]
    scores = tuple(
        score.model_copy(update={"nfe": nfe, "value": 8.0 / nfe, "protocol": {**score.protocol, "grid": grid}})
        for nfe, grid in ((1, "quadratic"), (2, "uniform"), (4, "quadratic"), (8, "uniform"))
    )
    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update={"scores": scores}))
    make_all(load(tiny))
    text = flowctl("results", tiny).stdout
    rows = {line.split()[3]: line for line in text.splitlines() if line.startswith("tiny ")}
    assert [nfe for nfe, line in rows.items() if "†" in line] == ["4"]  # one step is the same on all grids
    assert "grid quadratic" in rows["4"] and "† is on another time grid (quadratic) than the rest (uniform)" in text


def test_settings_that_a_model_has_throughout_are_said_once(flowctl, tiny, monkeypatch):
    from tests.flows.conftest import make_all
    from tests.flows.fakes import RESULTS

    student, other = RESULTS["evaluation"].scores
    teacher = other.model_copy(
        update={"model": "teacher", "nfe": 0, "protocol": {"metric": "FD-classifier", "noise": 0.2}}
    )
    student = student.model_copy(update={"protocol": {**student.protocol, "grid": "uniform", "guidance": 1.5}})
    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update={"scores": (student, teacher)}))
    make_all(load(tiny))
    lines = flowctl("results", tiny).stdout.splitlines()
    assert "teacher: noise 0.2" in lines and any(line.startswith("student: n_real 10") for line in lines)
    assert not any("guidance" in line or "noise" in line for line in lines if line.startswith("tiny "))


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
