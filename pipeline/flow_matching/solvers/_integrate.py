"""From noise to data, or back: the one place where an ODE is integrated."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.flow_matching.solvers._base import Solver
from pipeline.flow_matching.solvers._field import Velocity
from storage.errors import InputError, StageFailed


class NotFinite(StageFailed):
    """A state is infinite or NaN after step number `step`, counted from 1, which ends at `time`."""

    def __init__(self, step: int, time: float) -> None:
        super().__init__(
            f"The velocity must be finite, and the state after step {step}, at t = {time:g}, is not. "
            "Check the network's weights and its precision."
        )
        self.step, self.time = step, time


@torch.no_grad()
def trajectory(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> list[Tensor]:
    """Integrate dx/dt = v(x, t) and return the state at every time of the grid.

    Args:
        velocity: (x (B, ...), t (B,)) -> (B, ...).
        x: state at grid[0], (B, ...); not changed.
        grid: (n + 1,) times. Falling goes from noise to data, rising from data to noise.
        solver: one of `SOLVERS`.

    Returns:
        n + 1 states of the shape of x, the first being x. They are float32, or float64 if x is.

    Raises:
        InputError: the grid is not strictly monotone within [0, 1], or x does not have a floating type.
        NotFinite: a state is not finite.
    """
    return list(_states(velocity, x, grid, solver))


@torch.no_grad()
def integrate(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> Tensor:
    """The last state of `trajectory`, without storing the others."""
    for state in _states(velocity, x, grid, solver):
        x = state
    return x


def _states(velocity: Velocity, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    if not x.is_floating_point():
        raise InputError("The state of an ODE must have a floating type", x.dtype, "Convert images to [-1, 1] first.")
    # Many small steps in half precision would lose the small increments.
    x = x if x.dtype == torch.float64 else x.float()
    yield x
    times, finite = _checked(grid), []
    for state in solver.walk(velocity, x, times):
        finite.append(state.isfinite().all())  # on the device: the solver waits for none of them
        yield state
    flags = torch.stack(finite)
    if not flags.all():
        step = int((~flags).nonzero()[0]) + 1
        raise NotFinite(step, times[step])


def _checked(grid: Tensor) -> list[float]:
    times = torch.as_tensor(grid, dtype=torch.float64).tolist()
    steps = [b - a for a, b in pairwise(times)] if isinstance(times, list) else []
    monotone = bool(steps) and (all(h > 0 for h in steps) or all(h < 0 for h in steps))
    if not monotone or min(times) < 0 or max(times) > 1:
        raise InputError("A time grid must rise or fall strictly within [0, 1]", times, "See `time_grid`.")
    return times
