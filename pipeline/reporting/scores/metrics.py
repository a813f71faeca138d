"""Metrics by name: their order, their direction, and what real images score in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.outputs.results import Score

HELD_OUT, HALVES = "held-out", "halves"  # yardsticks: levels that are no model
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "is", "psnr", "ssim")
FRECHET = ("fid", "fd")


def lower_is_better(metric: str) -> bool:
    return metric.lower().split("-")[0] not in HIGHER_IS_BETTER


def is_frechet(metric: str) -> bool:
    return metric.lower().split("-")[0] in FRECHET


def larger_of_fewer(metric: str) -> bool:
    """Whether the distance is larger of fewer images, of the same distribution even."""
    return is_frechet(metric) or metric.lower().startswith("sw2")


def metrics_of(scores: Iterable[Score]) -> list[str]:
    """The metrics in the order of their weight: paired ones first, for they measure the very image that was asked for;
    else in order of appearance."""
    metrics = dict.fromkeys(score.metric for score in scores)
    return sorted(metrics, key=lambda metric: metric not in ("PSNR", "SSIM"))


def yardstick_of(
    metric: str, held_out: Mapping[str, float], floor: float, floors: Mapping[str, float]
) -> tuple[str, float] | None:
    """Name and value of what real images score: held-out images; where that was not measured, two halves of the others.

    Two halves hold half as many images each, so that their Frechet distance is too large to be a floor.
    """
    if metric in held_out:
        return HELD_OUT, held_out[metric]
    if is_frechet(metric):
        return HALVES, floor
    return (HALVES, floors[metric]) if metric in floors else None
