"""Whether a coupling's noise is close enough to N(0, I), in words, from the figures of `pipeline.metrics.gaussianity`.

The two-sample test of `pipeline.metrics.probe` decides. Means, deviations and kurtosis say what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ERRORS = 3.0  # standard errors above chance at which the test counts as significant; true noise exceeds it in 0.1 %

# Above these, `verdict` warns.
MEAN = 0.1  # |mean| of all values, where N(0, I) has 0
STD = 0.1  # |std - 1| of all values, for training images, whose std is 1 by choice of sigma_f
DIMENSIONS = 0.05  # share of dimensions whose std is off
KURTOSIS = 1.0  # median excess kurtosis of the dimensions (a Laplace distribution has 3)
SLICED = 0.05  # sliced W2 beyond that of true noise, where there is no test; pixelwise standardised digits have 0.07
OVERFIT = 2.0  # held-out images further from N(0, I) than training images by this factor, beyond the floor
SQUARE = 0.05  # mean square of held-out images above that of training images; digits' overfitted teacher has 0.1


def distinguished(figures: Mapping[str, Any]) -> bool | None:
    """Whether the two-sample test tells z from N(0, I); None for figures without the test."""
    test = figures.get("two_sample")
    return None if not test else test["accuracy"] > test["chance"] + ERRORS * test["standard_error"]


def in_words(figures: Mapping[str, Any]) -> str | None:
    """The result of the two-sample test with its uncertainty, as a sentence."""
    test = figures.get("two_sample")
    if not test:
        return None
    return (
        f"A small classifier {'distinguishes' if distinguished(figures) else 'does not distinguish'} z from N(0, I): "
        f"{test['accuracy']:.1%} of {test['decisions']:,} held-out decisions are right, chance is "
        f"{test['chance']:.1%} ± {test['standard_error']:.1%}."
    )


def leak_in_words(leak: Mapping[str, Any]) -> str:
    """How often the class is predicted from z alone, with its uncertainty."""
    return (
        f"{leak['accuracy']:.1%} of {leak['decisions']:,} right; chance {leak['chance']:.1%} "
        f"± {leak['standard_error']:.1%}"
    )


def verdict(figures: Mapping[str, Any]) -> list[str]:
    """Warnings in plain language, for figures from `gaussianity.diagnose` and `probe.probes`.

    Empty if a student may well be trained on such noise. The thresholds are the constants at the head of this module.
    An empty list is no proof: a small classifier may miss what a student depends on.
    """
    train, held_out = figures["train"], figures["held_out"]
    warnings = []
    if distinguished(figures):
        warnings.append(
            f"{in_words(figures)} The student is sampled from other noise than it is trained on; train the teacher "
            "longer or enlarge it."
        )
    if abs(train["mean"]) > MEAN or abs(train["std"] - 1) > STD:
        warnings.append(
            f"The noise has mean {train['mean']:.2f} and standard deviation {train['std']:.2f} where 0 and 1 are "
            "sampled: was it divided by its sigma_f?"
        )
    if train["dimensions_off"] > DIMENSIONS:
        low, _, high = train["dimension_std"]
        warnings.append(
            f"{train['dimensions_off']:.0%} of the dimensions have a standard deviation far from 1 (from {low:.2f} to "
            f"{high:.2f}): the teacher is too weak; train it longer or enlarge it."
        )
    if train["dimension_kurtosis"][1] > KURTOSIS:
        warnings.append(
            f"Half of the dimensions have an excess kurtosis above {train['dimension_kurtosis'][1]:.1f}, 0 being "
            "Gaussian: the teacher leaves outliers; train it longer or raise its noise."
        )
    if distinguished(figures) is None and train["sliced_w2"] > train["floor"] + SLICED:
        warnings.append(
            f"Sliced W2 to N(0, I) is {train['sliced_w2']:.3f}, true noise has {train['floor']:.3f}: the student will "
            "be sampled from other noise than it was trained on; the teacher is too weak to be worth distilling."
        )
    if held_out is not None:
        excess, held_excess = (max(part["sliced_w2"] - part["floor"], 0.0) for part in (train, held_out))
        if held_excess > max(OVERFIT * excess, SLICED):
            warnings.append(
                f"Held-out images score {held_out['sliced_w2']:.3f} in sliced W2 (true noise {held_out['floor']:.3f}), "
                f"training images {train['sliced_w2']:.3f}: the teacher is overfitted; stop it earlier or raise its "
                "noise."
            )
        elif (excess := mean_square(held_out) - mean_square(train)) > max(ERRORS * _error(figures), SQUARE):
            warnings.append(
                f"Noises of held-out images have a mean square of {mean_square(held_out):.2f}, of training images "
                f"{mean_square(train):.2f} (a difference of {excess:.2f} ± {_error(figures):.2f}): the teacher is "
                "overfitted; stop it earlier or raise its noise."
            )
    return warnings


def mean_square(part: Mapping[str, Any]) -> float:
    """E z^2 over all values; 1 for N(0, I)."""
    return part["mean"] ** 2 + part["std"] ** 2


def _error(figures: Mapping[str, Any]) -> float:
    """Standard error of the difference of both mean squares where both are of N(0, I): z^2 has the variance 2."""
    return math.sqrt(sum(2 / (figures[name]["n"] * figures["dimensions"]) for name in ("train", "held_out")))
