"""The velocity variance that a coupling leaves, measured on its pairs alone: no network, no training.

Flow matching regresses v = z - x on x_t = (1 - t) x + t z. Its loss is never below E Var(v | x_t, t), and paths of the
perfect network are straight where that is 0 (Liu et al. 2023, arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.flow_matching.paths import LINEAR
from storage.errors import InputError

NEIGHBOURS = 10
_DISTANCES_IN_MEMORY = 2**24


def velocity_variance(
    x: Tensor, z: Tensor, times: Sequence[float], neighbours: int = NEIGHBOURS, labels: Tensor | None = None
) -> list[float]:
    """E Var(v | x_t, t) per dimension at each time, from pairs and their neighbours: the least loss that can be had.

    The mean of v over the k nearest other points of x_t stands for E[v | x_t]. Two corrections:

    - The mean itself has a variance, so the squared residual is Var(v | x_t) (1 + 1/k); it is multiplied by
      k / (k + 1).
    - Neighbours lie at a distance, over which E[v | x_t] changes, and that counts as variance. In many dimensions
      they are hardly nearer than any other point. But Var(v | x_t) = Var(v - A x_t | x_t) for any fixed A, so the
      part that is linear in x_t is taken away first, which for Gaussians is all of it: along each principal axis of x
      by least squares.

    The rest of the second is the curved part of E[v | x_t] across a neighbourhood, so the estimate is too large
    rather than too small, less so with more pairs. Compare couplings at equal numbers of pairs, more of them than
    there are dimensions. 0 at all times is a coupling that a single network call can follow.

    Cost: a decomposition of D^3, and 2 n^2 D flops for each time; 64 MiB and a few copies of the pairs.

    Args:
        x, z: pairs of images and noise, (n, ...) of equal shape.
        times: in [0, 1]; 0 is data.
        neighbours: k.
        labels: (n,); if given, E Var(v | x_t, t, label), the variance that a class-conditional network faces.

    Raises:
        InputError: shapes that differ, a time outside [0, 1], or not more pairs, in some class, than neighbours.
    """
    if x.shape != z.shape or x.ndim < 2 or (labels is not None and labels.shape != x.shape[:1]):
        shapes = (tuple(x.shape), tuple(z.shape), None if labels is None else tuple(labels.shape))
        raise InputError(
            "x and z must have one shape, and labels must be (n,)", shapes, "Pass one noise and label per image."
        )
    outside = [t for t in times if not 0 <= t <= 1]
    if outside:
        raise InputError("Times must lie in [0, 1]", outside[0], "Use 0 for data and 1 for noise.")
    every = torch.zeros(len(x), dtype=torch.long) if labels is None else labels.cpu()
    groups = [(every == label).nonzero().squeeze(1) for label in every.unique()]
    least = min((len(group) for group in groups), default=0)
    if not 1 <= neighbours < least:
        raise InputError(
            f"neighbours must be >= 1 and below the smallest number of pairs in a class, {least}",
            neighbours,
            "Give more pairs or ask for fewer neighbours.",
        )
    total = torch.zeros(len(times), dtype=torch.float64)
    for group in groups:
        there = group.to(x.device)
        ours = x[there].flatten(1).float(), z[there].flatten(1).float()
        total += len(group) / len(x) * torch.tensor(_of_one_class(*ours, times, neighbours), dtype=torch.float64)
    return total.tolist()


def _of_one_class(x: Tensor, z: Tensor, times: Sequence[float], neighbours: int) -> list[float]:
    """Of pairs (n, D)."""
    centred = x - x.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors  # (D, D); turning both leaves distances as they are
    x, z = x @ axes, z @ axes
    v = LINEAR.target_velocity(x, z, 0.0)  # (n, D)
    variances = []
    for t in times:
        x_t = LINEAR.interpolate(x, z, t)
        rest = _without_linear_part(v, x_t)
        residual = rest - neighbour_means(x_t, rest, neighbours)
        variances.append(float(residual.double().square().mean()) * neighbours / (neighbours + 1))
    return variances


def _without_linear_part(v: Tensor, x_t: Tensor) -> Tensor:
    """v less its least-squares line in x_t, (n, D), each dimension by itself."""
    v, x_t = v - v.mean(0), x_t - x_t.mean(0)
    slope = (v * x_t).sum(0) / x_t.square().sum(0).clamp(min=1e-30)  # (D,)
    return v - slope * x_t


def neighbour_means(places: Tensor, values: Tensor, neighbours: int) -> Tensor:
    """The mean of values (n, E) over the nearest `neighbours` other points of each of places (n, D): (n, E)."""
    means = torch.empty_like(values)
    at_once = max(1, _DISTANCES_IN_MEMORY // len(places))
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]  # (m, D)
        distances = torch.cdist(part, places)  # (m, n)
        own = torch.arange(start, start + len(part), device=places.device)
        distances[own - start, own] = torch.inf
        nearest = distances.topk(neighbours, largest=False).indices  # (m, k)
        few = max(1, _DISTANCES_IN_MEMORY // (neighbours * values.shape[1]))
        means[start : start + len(part)] = torch.cat([values[rows].mean(1) for rows in nearest.split(few)])
    return means
