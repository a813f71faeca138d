"""Flow matching's own loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SquaredError:
    """|answer - target|^2 per dimension (Lipman et al. 2023, arXiv 2210.02747, eq. 9)."""

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`."""
        del x_t, t
        return (answer - target).float().square().mean()


SQUARED = SquaredError()
