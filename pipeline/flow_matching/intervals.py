"""The states of a student's path at the ends of its intervals, for students of several steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.sampling import planned, student_samples, student_velocity
from pipeline.flow_matching.solvers import CountedField, Solver, Velocity, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.recipe.sections import Sweep


@torch.no_grad()
def interval_ends(
    network: nn.Module, z: Tensor, labels: Tensor | None, how: Sweep, nfe: int, intervals: int
) -> tuple[list[Tensor], float]:
    """z (N, C, H, W), then the states of the path from T z at the ends of all k intervals, until t = 0; and the network
    calls that were counted, over all intervals. The path is the linear one.
    """
    if intervals == 1:
        x, calls = student_samples(network, z, labels, how, nfe)
        return [z, x], calls
    solver, steps = planned(how, nfe)
    velocity = CountedField(student_velocity(network, LINEAR, labels, how.guidance))
    # Dopri5's one step stands for any number: it ends at each end of an interval.
    states = states_between(velocity, how.temperature * z, solver, max(steps, intervals), intervals)
    return [z, *states[1:]], velocity.calls


@torch.no_grad()
def states_between(velocity: Velocity, z: Tensor, solver: Solver, steps: int, intervals: int) -> list[Tensor]:
    """States (N, ...) of the path from z at the even times 1, 1 - 1/k, ..., 0, with k = `intervals`.

    `solver` makes `steps` steps of equal length, a multiple of k; an adaptive one makes its own within each interval.
    """
    grid, each = time_grid("uniform", steps), steps // intervals
    states = [z]
    for first in range(0, steps, each):
        states.append(integrate(velocity, states[-1], grid[first : first + each + 1], solver))
    return states
