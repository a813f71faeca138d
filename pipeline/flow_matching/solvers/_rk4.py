"""The classical Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.flow_matching.solvers._base import FixedStep, evaluate
from pipeline.flow_matching.solvers._field import Velocity


@dataclass(frozen=True)
class RK4(FixedStep):
    """Simpson's rule over a step: start, middle twice, end. Order 4, 4 evaluations."""

    name: ClassVar[str] = "rk4"
    order: ClassVar[int] = 4
    evaluations: ClassVar[int] = 4

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        h = t_next - t
        v1 = evaluate(velocity, x, t)
        v2 = evaluate(velocity, x + h / 2 * v1, t + h / 2)
        v3 = evaluate(velocity, x + h / 2 * v2, t + h / 2)
        v4 = evaluate(velocity, x + h * v3, t_next)
        return x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
