"""What a solver is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from torch import Tensor

from pipeline.flow_matching.solvers._field import Velocity


class Solver(Protocol):
    """Solves the ODE dx/dt = v(x, t) over given times.

    Attributes:
        name: as in recipes and tables.
        order: the error at the end falls as (step length)^order.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        """States at `times[1:]`, each shaped like x (B, ...), from x at `times[0]`. x itself is not changed."""
