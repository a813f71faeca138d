"""Minibatch optimal transport."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from pipeline.couplings._base import gaussian_like


@dataclass(frozen=True)
class MinibatchOT:
    """Fresh noise, handed out within the batch so that the sum of |z - x|^2 is least.

    Pooladian et al. 2023 (arXiv 2304.14772) and Tong et al. 2023 (arXiv 2302.00482), with the exact assignment: every z
    is used once, where sampling from a transport plan repeats some and loses others. With labels, noise is exchanged
    only between images of one class: otherwise each class would be trained on noise of its own, yet sampled from all.
    """

    def pair(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        del rows
        z = gaussian_like(x, generator)
        return z[assignment(x, z, labels)]


def assignment(x: Tensor, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """The permutation p, (B,) int64 on the device of x, for which the sum of |z[p[i]] - x[i]|^2 is least.

    Args:
        x, z: (B, ...) of equal shape.
        labels: (B,); if given, the least among permutations with labels[p[i]] == labels[i].
    """
    # |z - x|^2 = |z|^2 + |x|^2 - 2 x.z, and a permutation leaves the sum of the squares alone.
    cost = -(x.flatten(1) @ z.flatten(1).T).double().cpu().numpy()  # (B, B), of images beside noises
    permutation = torch.empty(len(x), dtype=torch.long)
    if labels is None:
        permutation[:] = torch.from_numpy(linear_sum_assignment(cost)[1])
    else:
        labels = labels.cpu()
        for label in labels.unique():
            members = (labels == label).nonzero().squeeze(1)  # (b,)
            chosen = linear_sum_assignment(cost[members][:, members])[1]  # (b,) places within members
            permutation[members] = members[torch.from_numpy(chosen)]
    return permutation.to(x.device)
