"""A loss that single images with large errors cannot rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from storage.errors import InputError


@dataclass(frozen=True)
class PseudoHuber:
    """(sqrt(r^2 + (c D)^2) - c D) / D of the norm r = |answer - target| over the D dimensions of an image.

    Lee et al. 2024, arXiv 2405.20320, sec. 4.2: the loss of improved consistency training (Song and Dhariwal 2023,
    arXiv 2310.14189) in reflow, with c = 0.00054 and as their code has it: the turning point grows with D, and the loss
    is per dimension. Far below it, it is the squared error over 2 c D^2; far above, the norm over D.

    Args:
        c: where it turns from one into the other, per dimension.

    Raises:
        InputError: c is not a positive number.
    """

    c: float = 0.00054

    def __post_init__(self) -> None:
        if not (self.c > 0 and math.isfinite(self.c)):
            raise InputError("Pseudo-Huber turns at a positive c", self.c, "Use e.g. 0.00054.")

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`."""
        del x_t, t
        return self.each(answer, target).mean()

    def each(self, answer: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, (B,) float32."""
        difference = (answer - target).float().flatten(1)
        squared, dimensions = difference.square().sum(1), difference.shape[1]
        turn = self.c * dimensions
        # As a fraction: the difference of two square roots would lose all digits of a small error.
        return squared / ((squared + turn**2).sqrt() + turn) / dimensions
