"""Minibatch optimal transport, solved exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, Draw, gaussian_like

_SMOOTHING = (0.3, 0.1)  # of the Sinkhorn steps that prepare a cost, in units of `gain_deviation`
_PREPARED = 64  # images; smaller problems are solved without preparation


@dataclass(frozen=True)
class MinibatchOT(Coupling):
    """Fresh noise, handed out within the batch so that the sum of |z - x|^2 is least.

    Pooladian et al. 2023 (arXiv 2304.14772) and Tong et al. 2023 (arXiv 2302.00482), with the exact assignment: every z
    is used once, where sampling from a transport plan repeats some and loses others.

    Attributes:
        draw: gives the noise, or images of a `Source`, which are assigned in the same way whatever their own classes.
        within_classes: with labels, assign noise to images of one class at a time. Each class then trains on N(0, I),
            which it is sampled from. Across classes the paths are shorter, but a class trains on its part of N(0, I).
    """

    draw: Draw = gaussian_like
    within_classes: bool = True

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`."""
        del rows
        z = self.draw(x, generator)
        return z[assignment(x, z, labels if self.within_classes else None)]


def assignment(x: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """The permutation p, (B,) int64 on the device of x, for which the sum of |z[p[i]] - x[i]|^2 is least.

    The products are taken in the precision of x and z; on them the assignment is exact.

    Args:
        x, z: (B, ...) of equal shape.
        labels: (B,); if given, the least among permutations with labels[p[i]] == labels[i].
    """
    permutation = torch.empty(len(x), dtype=torch.long)
    for members in groups(len(x), labels):  # (b,)
        permutation[members] = members[_solve(_products(x, z, members).neg_())]
    return permutation.to(x.device)


def groups(count: int, labels: Tensor | None) -> Iterator[Tensor]:
    """Positions in a batch of `count` that may exchange noise, (b,) int64 on the CPU: all, or each class by itself."""
    if labels is None:
        yield torch.arange(count)
    else:
        labels = labels.cpu()
        for label in labels.unique():
            yield (labels == label).nonzero().squeeze(1)


def gain_deviation(cost: Tensor) -> float:
    """Standard deviation of a cost (b, b) less its rows' and columns' means.

    Those means are the same for every assignment; the rest is the gain that an assignment can bring. For |z - x|^2 the
    deviation is near 2 tr(Cov x)^1/2: it grows as the root of the dimension, where the cost itself grows as the
    dimension.
    """
    centred = cost - cost.mean(1, keepdim=True) - cost.mean(0) + cost.mean()
    return float(centred.square().mean().sqrt())


def _products(x: Tensor, z: Tensor, members: Tensor) -> Tensor:
    """<x_i, z_j> among members, (b, b). |z - x|^2 = |z|^2 + |x|^2 - 2 <x, z>, and the squares are the same for all."""
    if len(members) < len(x):
        members = members.to(x.device)
        x, z = x[members], z[members]
    return x.flatten(1) @ z.flatten(1).T


def _solve(cost: Tensor) -> Tensor:
    """The column of each row of a cost (b, b) for which the sum is least, (b,) int64 on the CPU."""
    exact = cost.double()
    if len(cost) >= _PREPARED:
        rows, columns = _nearly_dual(cost)
        # A number taken from a whole row or column changes no comparison of assignments, so that `rows` and `columns`
        # need not be exact; but shortest augmenting paths through nearly reduced costs are short.
        exact = exact.sub_(rows.double()).sub_(columns.double())
    return torch.from_numpy(linear_sum_assignment(exact.cpu().numpy())[1])


def _nearly_dual(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (b, 1) and (b,) near those of the dual linear program: two smoothed sweeps over it, then a sharp one."""
    rows, columns = cost.new_zeros(len(cost), 1), cost.new_zeros(len(cost))
    deviation = gain_deviation(cost)
    for smoothing in _SMOOTHING:
        step = smoothing * deviation
        if step > 0:
            rows = (cost - columns).mul_(-1 / step).logsumexp(1, keepdim=True).mul_(-step)
            columns = (cost - rows).mul_(-1 / step).logsumexp(0).mul_(-step)
    rows = (cost - columns).amin(1, keepdim=True)
    return rows, (cost - rows).amin(0)
