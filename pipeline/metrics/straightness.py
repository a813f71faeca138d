"""How straight a flow's paths are, measured by walking them from noise to data with small Euler steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.flow_matching.solvers import Velocity
from pipeline.flow_matching.times import time_grid

PATHS, PATH_STEPS = 256, 32  # that an evaluation measures at most, and Euler steps of each


class PathShape(NamedTuple):
    """Both measures, from one walk.

    Attributes:
        straightness: see `straightness`.
        curvature: mean of 1 - cos of the angle between velocities at consecutive times, LOOM-CFM's (arXiv 2603.15279,
            sec. 4.1). It falls as steps^-2, so compare it at equal steps only.
    """

    straightness: float
    curvature: float


def straightness(velocity: Velocity, z: Tensor, steps: int = PATH_STEPS) -> float:
    """S = integral over t of E |(z - x) - v(x_t, t)|^2 / D, with x the data end of the path that starts at z.

    Rectified flow's measure (Liu et al. 2023, arXiv 2209.03003), here per dimension. 0 means that one Euler
    step is exact. Unlike the training loss, it compares the velocity with the path's own ends, not with a coupling's.

    Args:
        velocity: (x (B, ...), t (B,)) -> (B, ...).
        z: noise, (B, ...).
        steps: Euler steps on a uniform grid, each a network call. The figure depends little on it.
    """
    return path_shape(velocity, z, steps).straightness


@torch.no_grad()
def path_shape(velocity: Velocity, z: Tensor, steps: int = PATH_STEPS) -> PathShape:
    """Walk once, measure both. Arguments as in `straightness`."""
    grid = time_grid("uniform", steps).tolist()
    x, h = z, 1 / steps
    chord = torch.zeros(z.flatten(1).shape, dtype=torch.float64, device=z.device)  # z - x = sum of h v, (B, D)
    energy = torch.zeros(len(z), dtype=torch.float64, device=z.device)  # integral of |v|^2, (B,)
    turns, before = [], None
    for t in grid[:-1]:
        v = velocity(x, x.new_full((len(x),), t))
        x = x - h * v
        flat = v.flatten(1).double()  # (B, D)
        chord += h * flat
        energy += h * flat.square().sum(1)
        direction = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
        if before is not None:
            # |a - b|^2 / 2 = 1 - a.b for unit vectors, without the cancellation
            turns.append(float((direction - before).square().sum(1).mean() / 2))
        before = direction
    # The mean of v over the path is the chord, so the integral of |chord - v|^2 is that of |v|^2 less |chord|^2.
    bent = (energy - chord.square().sum(1)).clamp(min=0).mean() / chord.shape[1]
    return PathShape(float(bent), sum(turns) / max(len(turns), 1))
