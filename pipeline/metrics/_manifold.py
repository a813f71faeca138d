"""Fidelity and diversity apart: precision and recall, density and coverage, from balls around nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.metrics._kid import check_sides
from storage.errors import InputError

_DISTANCES_IN_MEMORY = 2**24


@dataclass(frozen=True)
class Manifold:
    """Attributes are shares in [0, 1], but for the density, which can exceed 1. Higher is better.

    Attributes:
        precision: generated images inside the ball of some real one.
        recall: real images inside the ball of some generated one.
        density: real balls that a generated image lies in, on average, in units of those that a real one is expected
            to lie in; 1 in expectation for equal distributions.
        coverage: real images with a generated one inside their ball.
        real, generated: number of images; all four depend on both.
        neighbours: the balls reach to the k-th neighbour, k of precision and recall, k of density and coverage.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    real: int
    generated: int
    neighbours: tuple[int, int]


def manifold(real: Tensor, generated: Tensor, neighbours: tuple[int, int] = (3, 5)) -> Manifold:
    """All four, from three passes over pairs of features.

    Precision and recall are those of Kynkaanniemi et al. 2019 (arXiv 1904.06991, eq. 1 and 2), density and coverage
    those of Naeem et al. 2020 (arXiv 2002.09797, sec. 3.2); each pair has its paper's k by default. The ball of a
    feature reaches to its k-th nearest neighbour on its own side, that distance included.

    Args:
        real, generated: (n, F) and (m, F), on one device. Time grows as (n + m)^2 F: 10,000 of each is common, and
            values of other numbers do not compare.
        neighbours: k of precision and recall, k of density and coverage.

    Raises:
        InputError: different F, too few features for the neighbours, one that is not finite, or a k below 1.
    """
    few, many = neighbours
    if min(neighbours) < 1:
        raise InputError("neighbours must be >= 1", neighbours, "Use a positive number.")
    check_sides(real, generated, max(neighbours) + 1)
    # Distances do not change, but without a common offset fewer of their digits cancel.
    centre = real.double().mean(0)
    real, generated = real.double() - centre, generated.double() - centre
    # Rounding moves a squared distance by some 1e-16 of the squared norms; copies must not fall out of their balls.
    slack = 1e-12 * float(real.square().sum(1).max() + generated.square().sum(1).max())
    of_real = _radii(real, neighbours) + slack  # squared, (n, 2)
    of_generated = _radii(generated, (few,)) + slack  # squared, (m, 1)

    inside, density, reached = 0, 0, torch.zeros(len(real), 2, dtype=torch.bool, device=real.device)
    step = max(1, _DISTANCES_IN_MEMORY // len(real))
    for part, radii in zip(generated.split(step), of_generated.split(step), strict=True):
        pairs = _squared_distances(part, real)  # (b, n)
        inside += int((pairs <= of_real[:, 0]).any(1).sum())
        reached[:, 0] |= (pairs <= radii).any(0)
        within = pairs <= of_real[:, 1]
        density += int(within.sum())
        reached[:, 1] |= within.any(0)
    recall, coverage = reached.double().mean(0).tolist()
    return Manifold(
        inside / len(generated),
        recall,
        density / (many * len(generated)),
        coverage,
        len(real),
        len(generated),
        (few, many),
    )


def _radii(features: Tensor, neighbours: tuple[int, ...]) -> Tensor:
    """Squared distance of each feature (n, F) to its k-th nearest other one, for each k: (n, len(neighbours))."""
    radii = []
    for start in range(0, len(features), step := max(1, _DISTANCES_IN_MEMORY // len(features))):
        pairs = _squared_distances(features[start : start + step], features)
        pairs.diagonal(start).fill_(torch.inf)  # none is its own neighbour
        nearest = pairs.topk(max(neighbours), dim=1, largest=False, sorted=True).values
        radii.append(nearest[:, [k - 1 for k in neighbours]])
    return torch.cat(radii)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(b, F) and (n, F) to (b, n)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
