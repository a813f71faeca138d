"""Images that look alike, where a velocity all but leads to one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.flow_matching.losses._huber import PseudoHuber
from pipeline.flow_matching.losses._lpips import LPIPS


@dataclass(frozen=True)
class LpipsHuber:
    """(1 - t) pseudo-Huber(answer, target) + LPIPS(x_t - t answer, x_t - t target) / t.

    Lee et al. 2024, arXiv 2405.20320, sec. 4.2, LPIPS-Huber-1/t. At t = 1, where one-step students are distilled, it is
    LPIPS of the two images alone. Division by t gives an error of the velocity its weight back where the images differ
    by little of it.
    """

    lpips: LPIPS
    huber: PseudoHuber

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`. The images are (B, C, H, W), C being 1 or 3."""
        far = t.view(-1, *[1] * (x_t.ndim - 1))
        seen = self.lpips(x_t - far * answer.float(), x_t - far * target)
        return ((1 - t) * self.huber.each(answer, target) + seen / t).mean()
