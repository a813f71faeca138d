"""Dormand and Prince's adaptive method, by torchdiffeq."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.flow_matching.solvers._field import Velocity
from storage.errors import FlowctlError


@dataclass(frozen=True)
class Dopri5:
    """Chooses its own steps so that the error of each stays below atol + rtol |x|. Order 5.

    The grid only says where states are wanted. The step is one for the whole batch, so samples and calls depend
    slightly on which samples are integrated together.

    Raises:
        FlowctlError: while walking, if the tolerance cannot be met (a velocity that is not finite, most often).
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    name: ClassVar[str] = "dopri5"
    order: ClassVar[int] = 5

    def walk(self, velocity: Velocity, x: Tensor, times: list[float]) -> Iterator[Tensor]:
        from torchdiffeq import odeint  # here, as it is slow to import and few runs need it

        def field(t: Tensor, x: Tensor) -> Tensor:
            return velocity(x, t.to(x.dtype).expand(len(x))).to(x.dtype)

        t = torch.tensor(times, dtype=torch.float64, device=x.device)
        try:
            states = odeint(field, x, t, rtol=self.rtol, atol=self.atol, method="dopri5")  # (len(times), B, ...)
        except AssertionError as error:  # torchdiffeq asserts that its step does not shrink to nothing
            raise FlowctlError(
                f"dopri5 could not meet rtol {self.rtol}, atol {self.atol} ({error}). "
                "Check that the velocity is finite, or loosen the tolerances."
            ) from error
        yield from states[1:]
