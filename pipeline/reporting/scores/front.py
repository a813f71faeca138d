"""The Pareto front: the ways of sampling that no other one beats in cost and in quality at once."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.outputs.results import Score


def front(costs: Sequence[float], values: Sequence[float], lower: bool = True) -> list[bool]:
    """Which of these points no other one dominates: costs no more, is as good, and is better in one of the two.

    Args:
        costs: lower is better.
        values: lower is better, or higher.
        lower: which of the two.
    """
    sign = 1 if lower else -1
    points = [(cost, sign * value) for cost, value in zip(costs, values, strict=True)]
    best, chosen = float("inf"), set()
    for cost, value in sorted(set(points)):  # by cost, the better first among equals
        if value < best:
            best = value
            chosen.add((cost, value))
    return [point in chosen for point in points]


def fronts(scores: Sequence[Score], lower: bool = True) -> list[tuple[bool, bool]]:
    """For each score of one metric: is it on the front against network calls, and on that against seconds per image?

    What makes no calls of a velocity, such as a teacher, costs time alone and stands in the second only; a score whose
    protocol does not say how many images its seconds are of stands in the first only.
    """
    called = _within(scores, [score.nfe or None for score in scores], lower)
    seconds = [score.seconds_per_image for score in scores]
    timed = _within(scores, [None if cost is None else alike(cost) for cost in seconds], lower)
    return list(zip(called, timed, strict=True))


def alike(seconds: float) -> float:
    """A time to two significant digits, as it is shown: further digits depend on the load of the machine."""
    return float(f"{seconds:.1e}")


def _within(scores: Sequence[Score], costs: Sequence[float | None], lower: bool) -> list[bool]:
    """The front of those that have a cost."""
    priced = [(i, cost) for i, cost in enumerate(costs) if cost is not None]
    on = front([cost for _, cost in priced], [scores[i].value for i, _ in priced], lower)
    marks = {i: chosen for (i, _), chosen in zip(priced, on, strict=True)}
    return [marks.get(i, False) for i in range(len(scores))]
