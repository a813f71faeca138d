"""The divergence of a velocity field, by autograd: all of it, or seen by random probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

#: Up to this number of dimensions `divergence="auto"` is exact, with a backward pass for each.
EXACT_DIMENSIONS = 64

#: (v (B, ...), x (B, ...)) -> estimates (K, B) of the divergence of v at x, row by row; v has x in its graph.
Divergence = Callable[[Tensor, Tensor], Tensor]


def exact(v: Tensor, x: Tensor) -> Tensor:
    """sum_i dv_i / dx_i, one backward pass for each of the D dimensions: (1, B)."""
    # Rows do not see one another, so one pass serves them all.
    basis = torch.zeros(v.shape, dtype=v.dtype, device=v.device)
    direction = basis.view(len(v), -1)  # (B, D)
    total = x.new_zeros(len(x))
    for i in range(direction.shape[1]):
        direction[:, i] = 1
        (row,) = torch.autograd.grad(v, x, basis, retain_graph=True, materialize_grads=True)
        direction[:, i] = 0
        total += row.flatten(1)[:, i]
    return total[None]


def hutchinson(probes: Tensor) -> Divergence:
    """e^T (dv/dx) e for each probe e, one backward pass each.

    Its mean over probes of independent entries with mean 0 and variance 1 is the divergence (Hutchinson 1990; for
    flows: Grathwohl et al. 2019, arXiv 1810.01367, sec. 3.1). Entries of -1 and 1 see the diagonal of dv/dx without
    error: the variance is 2 sum_{i != j} S_ij^2 with S the symmetric part of dv/dx.

    Args:
        probes: (K, B, ...), K for each row of x.
    """

    def divergence(v: Tensor, x: Tensor) -> Tensor:
        estimates = []
        for probe in probes:
            (pulled,) = torch.autograd.grad(v, x, probe, retain_graph=True, materialize_grads=True)
            estimates.append((pulled * probe).flatten(1).sum(1))
        return torch.stack(estimates)

    return divergence


def rademacher(count: int, x: Tensor, generator: Generator) -> Tensor:
    """(count, B, ...) of -1 and 1, each with probability one half, in the dtype and on the device of x (B, ...)."""
    bits = torch.randint(0, 2, (count, *x.shape), generator=generator, dtype=torch.int8)
    return (2 * bits - 1).to(x)
