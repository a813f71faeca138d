"""The losses, and which of them a recipe's section names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.flow_matching.losses._lpips import LPIPS, load_lpips
from pipeline.recipe import sections


class Loss(ABC):
    """Compares the velocity that a network answers with its target.

    Attributes:
        repeatable: whether a GPU gives its gradient the same bits each time.
    """

    repeatable: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean over the batch, a float32 scalar; 0 where answer and target are equal.

        Args:
            answer: the network's velocity, (B, ...), half precision perhaps.
            target: the velocity of the pairs, (B, ...).
            x_t: the points of the path, (B, ...).
            t: their times, (B,). On the straight path the velocities lead to the images x_t - t answer and
                x_t - t target.
        """


@dataclass(frozen=True)
class SquaredError(Loss):
    """|answer - target|^2 per dimension (Lipman et al. 2023, arXiv 2210.02747, eq. 9)."""

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`."""
        del x_t, t
        return (answer - target).float().square().mean()


SQUARED = SquaredError()


@dataclass(frozen=True)
class PseudoHuber(Loss):
    """(sqrt(r^2 + (c D)^2) - c D) / D of the norm r = |answer - target| over the D dimensions of an image.

    Lee et al. 2024, arXiv 2405.20320, sec. 4.2: the loss of improved consistency training (Song and Dhariwal 2023,
    arXiv 2310.14189) in reflow, with c = 0.00054 and as their code has it: the turning point grows with D, and the loss
    is per dimension. Far below it, it is the squared error over 2 c D^2; far above, the norm over D. So single images
    with large errors do not dominate.

    Attributes:
        c: where it turns from one into the other, per dimension; above 0.
    """

    c: float = 0.00054

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


@dataclass(frozen=True)
class LpipsHuber(Loss):
    """(1 - t) pseudo-Huber(answer, target) + LPIPS(x_t - t answer, x_t - t target) / t.

    Lee et al. 2024, arXiv 2405.20320, sec. 4.2, LPIPS-Huber-1/t. At t = 1, where one-step students are distilled, it is
    LPIPS of the two images alone. Division by t gives an error of the velocity its weight back where the images differ
    by little of it.
    """

    repeatable = False  # torch's backward passes of resizing and pooling use atomic additions
    lpips: LPIPS
    huber: PseudoHuber

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`. The images are (B, C, H, W), C being 1 or 3."""
        t_column = t.view(-1, *[1] * (x_t.ndim - 1))
        distances = self.lpips(x_t - t_column * answer.float(), x_t - t_column * target)
        return ((1 - t) * self.huber.each(answer, target) + distances / t).mean()


def _lpips_huber(config: sections.LpipsHuber, device: torch.device | str) -> LpipsHuber:
    lpips = load_lpips(config.network, config.features, config.linear, config.size)
    return LpipsHuber(lpips.to(device), PseudoHuber(config.c))


_LOSSES: dict[type[sections.Config], Callable[..., Loss]] = {
    sections.SquaredError: lambda config, device: SQUARED,
    sections.PseudoHuber: lambda config, device: PseudoHuber(config.c),
    sections.LpipsHuber: _lpips_huber,
}


def loss_of_config(config: sections.Loss, device: torch.device | str = "cpu") -> Loss:
    """The loss of a recipe's section. Raises DataError where LPIPS's weights cannot be read."""
    return _LOSSES[type(config)](config, device)
