"""Solvers that make one step from each time of the grid to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from pipeline.flow_matching.solvers._field import Velocity
from storage.errors import InputError


class FixedStep:
    """A `Solver` that is defined by its `step`. `evaluations` is the number of velocity evaluations in one step."""

    name: ClassVar[str]
    order: ClassVar[int]
    evaluations: ClassVar[int]

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        """The state at `t_next`, (B, ...), from x (B, ...) at t."""
        raise NotImplementedError

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        for t, t_next in pairwise(times):
            x = self.step(velocity, x, t, t_next)
            yield x


def evaluate(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """v(x, t) for x (B, ...), in the precision of x even if the network ran in half."""
    return velocity(x, x.new_full((len(x),), t)).to(x.dtype)


@dataclass(frozen=True)
class Euler(FixedStep):
    """x' = x + h v(x, t). Order 1, 1 evaluation; exact in a single step where paths are straight."""

    name: ClassVar[str] = "euler"
    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        return x + (t_next - t) * evaluate(velocity, x, t)


@dataclass(frozen=True)
class Jump(FixedStep):
    """x_r = x_t - (t - r) u(x_t, r, t), with u the average velocity of a MeanFlow student (Geng et al. 2025, arXiv
    2505.13447, eq. 12). 1 evaluation; exact over any step where u is, so that its order is that of Euler otherwise.

    Raises:
        InputError: in `walk`, times that rise: u starts from the interval's later end.
    """

    name: ClassVar[str] = "jump"
    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 1

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        if t_next > t:
            raise InputError("A jump must go from noise to data", f"from t = {t:g} to {t_next:g}", "Flip the grid.")
        average = velocity(x, x.new_full((len(x),), t), r=x.new_full((len(x),), t_next))
        return x + (t_next - t) * average.to(x.dtype)


@dataclass(frozen=True)
class Midpoint(FixedStep):
    """Step with the velocity half a step ahead. Order 2, 2 evaluations, none of them at the end of the step."""

    name: ClassVar[str] = "midpoint"
    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(self, velocity: Velocity, x: Tensor, t: float, t_next: float) -> Tensor:
        h = t_next - t
        middle = x + h / 2 * evaluate(velocity, x, t)
        return x + h * evaluate(velocity, middle, t + h / 2)


@dataclass(frozen=True)
class Heun(FixedStep):
    """The explicit trapezium rule: step with the mean of the velocities at both ends. Order 2, 2 evaluations.

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
        for t, t_next in pairwise(times):
            method = Euler() if self.euler_last and t_next == times[-1] else self
            x = method.step(velocity, x, t, t_next)
            yield x


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge-Kutta method, Simpson's rule over a step. Order 4, 4 evaluations."""

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
