"""Kernel Inception Distance: a distance between two sets of features that is unbiased however few there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from storage.errors import InputError

_SIZE = 1000  # of a subset: the paper's
_SUBSETS = 10  # at least, so that their spread means something; subsets shrink where there are too few features


@dataclass(frozen=True)
class KernelDistance:
    """Mean over subsets, with how sure it is.

    Attributes:
        value: squared MMD. Its expectation is 0 for equal distributions, so that it may well be negative.
        standard_error: of `value`: deviation of the subsets over the root of their number.
        subsets: number of subsets.
        size: features of each side in a subset.
    """

    value: float
    standard_error: float
    subsets: int
    size: int


def kid(real: Tensor, generated: Tensor, seed: int = 0) -> KernelDistance:
    """Unbiased squared MMD with the kernel (x.y / F + 1)^3, averaged over subsets, in float64.

    Binkowski et al. 2018 (arXiv 1801.01401, sec. 4). Subsets have 1000 features of each side, or a tenth of the smaller
    side where that is less. No feature is in two of them, which makes them independent and their standard error honest.
    Published values often average 100 subsets that overlap; the expectation is the same, as it is for any size.

    Args:
        real, generated: (n, F) and (m, F), on one device. More than the smaller number of both are not used.
        seed: of the subsets.

    Raises:
        InputError: different F, fewer than 20 features on a side, or one that is not finite.
    """
    check_sides(real, generated, 2 * _SUBSETS)
    count = min(len(real), len(generated))
    size = min(_SIZE, count // _SUBSETS)
    subsets = count // size
    generator = np.random.default_rng(seed)
    orders = [torch.from_numpy(generator.permutation(len(side))[: subsets * size]) for side in (real, generated)]
    distances = [
        squared_mmd(real[a.to(real.device)], generated[b.to(real.device)])
        for a, b in zip(orders[0].split(size), orders[1].split(size), strict=True)
    ]
    deviation = np.std(distances, ddof=1)
    return KernelDistance(float(np.mean(distances)), float(deviation / subsets**0.5), subsets, size)


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of MMD^2 between x (n, F) and y (m, F) with the cubic kernel.

    mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean of k(x_i, y_j): Gretton et al. 2012,
    JMLR 13, eq. 3.
    """
    x, y = x.double(), y.double()
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (_kernel(x, x), _kernel(y, y))]
    return float(within[0] + within[1] - 2 * _kernel(x, y).mean())


def check_sides(real: Tensor, generated: Tensor, least: int) -> None:
    """Both are finite features (n, F) of one extractor, at least `least`."""
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        shapes = (tuple(real.shape), tuple(generated.shape))
        raise InputError("Features must have shapes (n, F) and (m, F)", shapes, "Use one extractor for both.")
    if min(len(real), len(generated)) < least:
        got = (len(real), len(generated))
        raise InputError(
            f"Each side must have >= {least} samples", got, "Give each more images, or leave the metric out."
        )
    if not (torch.isfinite(real).all() and torch.isfinite(generated).all()):
        raise InputError("Features must be finite", "NaN or infinity", "Check the images: did the sampler diverge?")


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
