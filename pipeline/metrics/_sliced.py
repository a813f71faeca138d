"""Sliced Wasserstein-2 distance: the mean over random directions of exact distances on a line."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from storage.errors import InputError

_DIRECTIONS_TOGETHER = 64  # directions projected together: bounds memory to 64 n numbers


def sliced_w2_to_normal(z: Tensor, projections: int = 256, seed: int = 0) -> float:
    """Distance of samples to N(0, I), whose projections are N(0, 1) exactly.

    On a line the optimal map is monotone, so W2^2 is the integral over u of (F^-1(u) - Phi^-1(u))^2. F^-1 is constant,
    the i-th smallest sample y_i, on each [(i-1)/n, i/n], which leaves mean(y^2) - 2 mean(y q) + 1 with q_i the mean of
    Phi^-1 on that interval, n (phi(Phi^-1((i-1)/n)) - phi(Phi^-1(i/n))).

    Args:
        z: (n, ...), flattened to (n, D).
        projections: number of directions.
        seed: of the directions.

    Returns:
        The root of the mean over directions of W2^2, in units of z. A sample of N(0, I) itself scores a
        little above 1/sqrt(n), not 0.

    Raises:
        InputError: fewer than two samples.
    """
    z = _flat(z)
    q = _normal_quantile_means(len(z)).to(z.device)  # (n,)
    total = 0.0
    for directions in _directions(z.shape[1], projections, seed):
        y = (z @ directions.to(z.device)).double().sort(dim=0).values  # (n, P)
        total += float((y.square().mean(0) - 2 * (y * q[:, None]).mean(0) + 1).clamp(min=0).sum())
    return math.sqrt(total / projections)


def sliced_w2(a: Tensor, b: Tensor, projections: int = 256, seed: int = 0) -> float:
    """Distance between two sets of samples, (n, ...) and (m, ...), flattened; see `sliced_w2_to_normal`.

    Raises:
        InputError: samples of different sizes, or fewer than two of them.
    """
    a, b = _flat(a), _flat(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            "Both sets must have samples of the same size", (a.shape[1], b.shape[1]), "Compare samples of one shape."
        )
    weights, of_a, of_b = _common_refinement(len(a), len(b))
    total = 0.0
    for directions in _directions(a.shape[1], projections, seed):
        y_a = (a @ directions.to(a.device)).double().sort(dim=0).values.cpu()  # (n, P)
        y_b = (b @ directions.to(b.device)).double().sort(dim=0).values.cpu()  # (m, P)
        total += float((weights @ (y_a[of_a] - y_b[of_b]).square()).sum())
    return math.sqrt(total / projections)


def _directions(dimension: int, projections: int, seed: int) -> Iterator[Tensor]:
    """Unit vectors as columns of (D, P) blocks, uniform on the sphere."""
    # Not torch's generator: samples drawn there from the same seed would be the directions themselves.
    generator = np.random.default_rng(seed)
    for start in range(0, projections, _DIRECTIONS_TOGETHER):
        shape = (min(_DIRECTIONS_TOGETHER, projections - start), dimension)
        block = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        yield (block / block.norm(dim=1, keepdim=True)).T


def _normal_quantile_means(n: int) -> Tensor:
    """(n,) float64: the mean of Phi^-1 over each of n equal slices of probability."""
    edges = torch.special.ndtri(torch.arange(n + 1, dtype=torch.float64) / n)  # -inf ... inf
    density = (-edges.square() / 2).exp() / math.sqrt(2 * math.pi)  # 0 at both infinities
    return n * (density[:-1] - density[1:])


def _common_refinement(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces of [0, 1] on which both i/n- and j/m-step functions are constant: their lengths, and the step of each."""
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1/(n m)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return (ends - starts).double() / (n * m), starts // m, starts // n


def _flat(samples: Tensor) -> Tensor:
    if len(samples) < 2:
        raise InputError("The number of samples must be >= 2", len(samples), "Pass more samples.")
    return samples.detach().flatten(1).float()
