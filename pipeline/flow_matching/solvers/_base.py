"""What a solver is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Protocol

from torch import Tensor

from pipeline.flow_matching.solvers._field import Velocity


class Solver(Protocol):
    """Walks the ODE dx/dt = v(x, t) over given times.

    Attributes:
        name: as in recipes and tables.
        order: the error at the end falls as (step length)^order.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        """States at `times[1:]`, each shaped like x (B, ...), from x at `times[0]`. x itself is left as it is."""


class FixedStep:
    """A solver that makes one step from each time of the grid to the next. A method is then only its `step`."""

    name: ClassVar[str]
    order: ClassVar[int]
    evaluations: ClassVar[int]  # of the velocity, per step

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        raise NotImplementedError

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        for t, t_next in pairwise(times):
            x = self.step(velocity, x, t, t_next)
            yield x


def evaluate(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """v(x, t) with t as (B,) beside x (B, ...), returned in the state's precision even if the network ran in half."""
    return velocity(x, x.new_full((len(x),), t)).to(x.dtype)
