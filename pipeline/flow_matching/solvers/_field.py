"""Velocity fields for solvers: guidance, and the count of network calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from storage.errors import InputError

#: (x (B, ...), t (B,)) -> dx/dt (B, ...); for `Jump` with r (B,) too, the average of dx/dt over [r, t].
Velocity = Callable[..., Tensor]

#: A network (x (B, ...), t (B,), labels (B,)) -> v (B, ...); labels None means unconditional.
Network = Callable[..., Tensor]


class CountedField:
    """Counts the network calls that go through it.

    It may wrap a network or a `Guided` velocity, whose evaluations cost two calls: the count is the same.

    Attributes:
        calls: network calls on a batch since the start.
        calls_per_evaluation: network calls of one evaluation.
    """

    def __init__(self, field: Callable[..., Tensor]) -> None:
        self.field = field
        self.calls = 0
        self.calls_per_evaluation: int = getattr(field, "calls_per_evaluation", 1)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += self.calls_per_evaluation
        return self.field(*args, **kwargs)


class Guided:
    """Classifier-free guidance, v = v_u + w (v_c - v_u) (Ho & Salimans 2022, arXiv 2207.12598, eq. 6 with w -> w - 1).

    Args:
        field: the network, called as (x, t, labels).
        labels: (B,) classes to generate, or None for unconditional samples.
        guidance: w. At 1 each evaluation is one conditional network call, else two network calls.

    Raises:
        InputError: guidance without labels.
    """

    def __init__(self, field: Network, labels: Tensor | None, guidance: float = 1.0) -> None:
        if labels is None and guidance != 1:
            raise InputError("guidance must be 1 without labels", guidance, "Give labels, or leave it at 1.")
        self.field, self.labels, self.guidance = field, labels, guidance
        self.calls_per_evaluation: int = calls_per_evaluation(guidance)

    def __call__(self, x: Tensor, t: Tensor, r: Tensor | None = None) -> Tensor:
        """v (B, ...) at x (B, ...) and t (B,); with r (B,) the average velocity over [r, t]."""
        field = self.field if r is None else partial(self.field, r=r)
        conditional = field(x, t, self.labels)
        if self.calls_per_evaluation == 1:
            return conditional
        unconditional = field(x, t, None)
        return unconditional + self.guidance * (conditional - unconditional)


def calls_per_evaluation(guidance: float) -> int:
    """Network calls that one evaluation of a conditional velocity costs under this guidance."""
    return 1 if guidance == 1 else 2
