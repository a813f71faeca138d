"""The Pareto front against its definition."""

import numpy as np
import pytest

from pipeline.reporting.scores.front import front, fronts
from tests.pipeline.reporting.finished import score


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_dominates(lower, seed):
    generator = np.random.default_rng(seed)
    costs, values = generator.integers(0, 8, (2, 30)).astype(float)  # with ties in both
    worth = values if lower else -values
    dominated = [
        any(c <= cost and w <= w0 and (c, w) != (cost, w0) for c, w in zip(costs, worth, strict=True))
        for cost, w0 in zip(costs, worth, strict=True)
    ]
    assert front(list(costs), list(values), lower) == [not beaten for beaten in dominated]
    assert any(dominated) and not all(dominated)


def test_calls_and_seconds_have_fronts_of_their_own():
    made = [
        score("teacher", 0, 6.0, "inverse", seconds=2.0),
        score("student", 1, 9.0, seconds=1.0),
        score("student", 2, 5.0, seconds=3.0),
        score("onestep", 1, 7.0, seconds=1.0),
        score("student", 4, 5.5, seconds=5.0),
    ]
    assert fronts(made) == [(False, True), (False, False), (True, True), (True, True), (False, False)]
    assert fronts([]) == []


def test_what_has_no_time_is_on_no_front_against_it():
    untimed = score("student", 1, 1.0).model_copy(update={"protocol": {"metric": "FD-classifier"}})
    assert fronts([untimed, score("student", 2, 2.0)]) == [(True, False), (False, True)]


def test_times_that_read_alike_count_as_alike():
    made = [score("student", 1, 9.0, seconds=1.0), score("onestep", 1, 7.0, seconds=1.004)]
    assert fronts(made) == [(False, False), (True, True)]


def test_calls_never_count_as_alike():
    made = [score("student", 153, 0.8, "dopri5", seconds=1.0), score("onestep", 154, 0.7, "dopri5", seconds=2.0)]
    assert fronts(made) == [(True, True), (True, True)]
