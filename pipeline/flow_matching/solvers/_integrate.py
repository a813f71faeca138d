"""From noise to data, or back: the one place where an ODE is integrated."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.flow_matching.solvers._base import Solver
from pipeline.flow_matching.solvers._field import Velocity
from storage.errors import InputError


@torch.no_grad()
def trajectory(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> list[Tensor]:
    """Integrate dx/dt = v(x, t) and keep the state at every time of the grid.

    Args:
        velocity: (x (B, ...), t (B,)) -> (B, ...).
        x: state at grid[0], (B, ...); not changed.
        grid: (n + 1,) times. Falling goes from noise to data, rising from data to noise.
        solver: see `SOLVERS`.

    Returns:
        n + 1 states of the shape of x, the first being x. They are float32, or float64 if x is.

    Raises:
        InputError: the grid is not strictly monotone within [0, 1], or x does not have a floating type.
    """
    return list(_states(velocity, x, grid, solver))


@torch.no_grad()
def integrate(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> Tensor:
    """The last state of `trajectory`, with the others forgotten on the way."""
    for state in _states(velocity, x, grid, solver):
        x = state
    return x


def _states(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    if not x.is_floating_point():
        raise InputError("An ODE is integrated in floating point", x.dtype, "Convert images to [-1, 1] first.")
    # Many small steps in half precision would lose the small increments.
    x = x if x.dtype == torch.float64 else x.float()
    yield x
    yield from solver.walk(velocity, x, _checked(grid))


def _checked(grid: Tensor) -> list[float]:
    times = torch.as_tensor(grid, dtype=torch.float64).tolist()
    if isinstance(times, float) or len(times) < 2:
        raise InputError("A time grid has two times or more", times, "See `time_grid`.")
    steps = [b - a for a, b in pairwise(times)]
    monotone = all(h > 0 for h in steps) or all(h < 0 for h in steps)
    if not monotone or min(times) < 0 or max(times) > 1:
        raise InputError("A time grid rises or falls strictly within [0, 1]", times, "See `time_grid`.")
    return times
