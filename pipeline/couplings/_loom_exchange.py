"""One exchange of noises within a minibatch: the least cost that it allows, and no change without a gain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.couplings._minibatch_ot import assignment

ROUNDING = 1e-9  # a gain below this share of the cost is none: equal images would pass their noises around for ever


class Exchange(NamedTuple):
    """Image i takes over the noise of `order[i]`. All on the CPU."""

    order: Tensor  # (B,) int64, a permutation
    before: Tensor  # (B,) float64: squared distance of image and noise per dimension, before and
    after: Tensor  # (B,) float64: after


def keep(x: Tensor, z: Tensor) -> Exchange:
    """No exchange: every image keeps its noise. Arguments as in `exchange`."""
    before = distances(x, z)
    return Exchange(torch.arange(len(x)), before, before)


def exchange(x: Tensor, z: Tensor, labels: Tensor | None) -> Exchange:
    """The assignment of least cost within the batch (LOOM-CFM, arXiv 2603.15279, Equation 9), cycle by cycle.

    A permutation is a set of cycles. Those that lower the cost are the negative alternating cycles of the paper's
    Appendix B, and only they are followed. So the cost never rises, though `assignment` is computed in float32, and
    where nothing can be gained nothing moves.

    Args:
        x: images, (B, C, H, W). z: the noise that each has, (B, C, H, W).
        labels: (B,) on the CPU; if given, noises are exchanged between images of one label only.
    """
    stay, before = torch.arange(len(x)), distances(x, z)
    order = assignment(x, z, labels).cpu()
    moved = (order != stay).nonzero().squeeze(1)
    after = before.clone()
    after[moved] = distances(x[moved.to(x.device)], z[order[moved].to(z.device)])
    better = _gains(order, before, after)
    return Exchange(torch.where(better, order, stay), before, torch.where(better, after, before))


def distances(x: Tensor, z: Tensor) -> Tensor:
    """|z - x|^2 per dimension, (B,) float64 on the CPU."""
    return z.double().sub_(x).flatten(1).square_().mean(1).cpu()


def _gains(order: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether each image is in a cycle that lowers the cost, (B,) bool."""
    cycle, jump = np.arange(len(order)), order.numpy()
    for _ in range(len(order).bit_length()):  # the least place among the next 1, 2, 4 ... of the cycle: its name
        cycle, jump = np.minimum(cycle, cycle[jump]), jump[jump]
    old, new = np.bincount(cycle, before.numpy()), np.bincount(cycle, after.numpy())
    return torch.from_numpy((old - new > ROUNDING * old)[cycle])
