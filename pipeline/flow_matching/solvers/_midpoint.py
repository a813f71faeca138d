"""The explicit midpoint method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.flow_matching.solvers._base import FixedStep, evaluate
from pipeline.flow_matching.solvers._field import Velocity


@dataclass(frozen=True)
class Midpoint(FixedStep):
    """Step with the velocity found half a step ahead. Order 2, 2 evaluations, none of them at the end of the step."""

    name: ClassVar[str] = "midpoint"
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        h = t_next - t
        middle = x + h / 2 * evaluate(velocity, x, t)
        return x + h * evaluate(velocity, middle, t + h / 2)
