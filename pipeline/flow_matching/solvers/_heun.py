"""Heun's method, the explicit trapezium rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from pipeline.flow_matching.solvers._base import FixedStep, evaluate
from pipeline.flow_matching.solvers._euler import Euler
from pipeline.flow_matching.solvers._field import Velocity


@dataclass(frozen=True)
class Heun(FixedStep):
    """Step with the mean of the velocities at both ends. Order 2, 2 evaluations.

    Attributes:
        euler_last: make the last step with Euler, sparing the evaluation at its end, as the EDM sampler does (Karras et
            al. 2022, arXiv 2206.00364, algorithm 1). n steps then cost 2n - 1 evaluations. The last step's error is of
            order h^2, so the order stays 2.
    """

    euler_last: bool = False

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        h = t_next - t
        v = evaluate(velocity, x, t)
        v_next = evaluate(velocity, x + h * v, t_next)
        return x + h / 2 * (v + v_next)

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        last = len(times) - 2
        for i, (t, t_next) in enumerate(pairwise(times)):
            method = Euler() if self.euler_last and i == last else self
            x = method.step(velocity, x, t, t_next)
            yield x
