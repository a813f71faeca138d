"""Scores as the benchmarks of many recipes read them."""

from benchmarks.matrix import distances, frechet_scores
from pipeline.outputs.results import EvaluationResult, Score


def score(metric, nfe, value):
    held_out = 2 * value if metric != "recall" else None
    return Score(
        model="student", solver="euler", nfe=nfe, metric=metric, value=value, value_held_out=held_out, seconds=1.0,
        protocol={},
    )  # fmt: skip


def test_further_metrics_do_not_stand_in_the_place_of_distances():
    scores = [score(metric, nfe, nfe + add) for nfe in (1, 31) for metric, add in (("FID", 0.5), ("recall", 9.0))]
    found = frechet_scores(EvaluationResult(protocol="a", floor=0.1, scores=tuple(scores), curvature=0.0, warnings=()))
    assert distances(found) == {"train": {"1": 1.5, "31": 31.5}, "held_out": {"1": 3.0, "31": 63.0}}
