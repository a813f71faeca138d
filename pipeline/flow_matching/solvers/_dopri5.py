"""Dormand and Prince's adaptive method, by torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.precision import ieee
from pipeline.flow_matching.solvers._field import Velocity
from storage.errors import StageFailed


@dataclass(frozen=True)
class Dopri5:
    """Chooses its own steps so that the error of each stays below atol + rtol |x|. Order 5.

    The grid only says at which times states are returned. The step is one for the whole batch, so samples and calls
    depend slightly on which samples are integrated together. The velocity is asked for times of the grid's range only.

    Attributes:
        rtol, atol: tolerances of a step, above 0.

    Raises:
        StageFailed: in `walk`, the tolerance cannot be met (a velocity that is not finite, most often).
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    name: ClassVar[str] = "dopri5"
    order: ClassVar[int] = 5

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        def field(t: Tensor, x: Tensor) -> Tensor:
            return velocity(x, t.to(x.dtype).expand(len(x))).to(x.dtype)

        yield from adaptive(field, x, times, x.device, self.rtol, self.atol)[1:]  # from (len(times), B, ...)


def adaptive(
    field: Callable[[Tensor, Any], Any], start: Any, times: list[float], device: torch.device, rtol: float, atol: float
) -> Any:
    """torchdiffeq's dopri5 that never leaves the range of `times`, on networks in float32 without TF32.

    TF32's rounding is larger than the errors that choose the steps.

    By itself it steps past the last time and interpolates back, so that a network is asked for times that it was never
    trained at, and the error there decides about the last steps. `step_t` makes the last step end where the grid does.
    The clamp is for the guess of the first step, which may look further ahead than the grid is long.

    Args:
        field: (t (), state) -> the derivative of the state, a tensor or a tuple of tensors.
        start: the state at times[0].

    Returns:
        The states at all times, stacked along a new first dimension.

    Raises:
        StageFailed: the tolerance cannot be met.
    """
    from torchdiffeq import odeint  # here, as it is slow to import and few runs need it

    t = torch.tensor(times, dtype=torch.float64, device=device)
    low, high = min(times), max(times)
    try:
        with ieee(device, "matmul", "conv"):
            return odeint(
                lambda t, state: field(t.clamp(low, high), state),
                start,
                t,
                rtol=rtol,
                atol=atol,
                method="dopri5",
                options={"step_t": t[-1:]},
            )
    except AssertionError as error:  # torchdiffeq asserts that its step does not shrink to nothing
        raise StageFailed(
            f"dopri5 could not meet rtol {rtol}, atol {atol} ({error}). "
            "Check that the velocity is finite, or loosen the tolerances."
        ) from error
