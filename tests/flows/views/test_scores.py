"""The numbers with which a run ends."""

from flows.session.session import Session
from flows.views.scores import summary
from pipeline.outputs.results import LikelihoodResult, Score
from pipeline.recipe.load import load
from tests.flows.conftest import make_all
from tests.flows.fakes import RESULTS


def test_a_run_ends_with_both_distances_of_its_leading_metric(tiny, monkeypatch):
    def score(model, nfe, value, held_out, metric="FD-classifier", error=None):
        return Score(
            model=model,
            solver="euler",
            nfe=nfe,
            metric=metric,
            value=value,
            value_held_out=held_out,
            error=error,
            protocol={"metric": metric, "n_fake": 16},
            seconds=0.1,
        )

    scores = (
        score("teacher", 0, 3.0, 3.5),
        score("student", 1, 9.0, 9.5, error=0.5),
        score("onestep", 1, 4.0, None),
        score("student", 1, 0.8, None, metric="recall"),
    )
    bits = LikelihoodResult(
        bits_per_dim=3.2, standard_error=0.01, probe_error=0.001, images=64, probes=2, tolerance=1e-5, calls=101.5
    )
    changes = {"scores": scores, "likelihood": bits, "held_out": {"FD-classifier": 2.5}}
    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update=changes))
    found = summary(make_all(load(tiny)))
    assert found.head == ["MODEL", "NFE", "FD-classifier", "TO HELD-OUT", "SAMPLER"]
    assert found.rows == [
        ["student", "1", "9.0 ± 0.5", "9.5", "euler"],
        ["one-step student", "1", "4.0", "", "euler"],
        ["teacher", "0", "3.0", "3.5", "euler"],
        ["held-out images", "", "2.5", "", ""],
    ]
    assert found.others == ["recall", "bits per dimension"]


def test_no_evaluation_no_numbers(home, tiny):
    assert summary(Session.open(load(tiny))) is None and summary(Session.open(load(tiny), until="bank")) is None
