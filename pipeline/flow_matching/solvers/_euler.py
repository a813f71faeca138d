"""Euler's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.flow_matching.solvers._base import FixedStep, evaluate
from pipeline.flow_matching.solvers._field import Velocity


@dataclass(frozen=True)
class Euler(FixedStep):
    """x' = x + h v(x, t). Order 1, 1 evaluation; exact in a single step where paths are straight."""

    name: ClassVar[str] = "euler"
    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        return x + (t_next - t) * evaluate(velocity, x, t)
