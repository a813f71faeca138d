"""What a loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.flow_matching.losses._huber import PseudoHuber
from pipeline.flow_matching.losses._lpips import load_lpips
from pipeline.flow_matching.losses._lpips_huber import LpipsHuber
from pipeline.recipe import sections as configs


class Loss(Protocol):
    """Compares the velocity that a network answers with the one that it was asked for."""

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean over the batch, a float32 scalar; 0 where answer and target are equal.

        Args:
            answer: the network's velocity, (B, ...), half precision perhaps.
            target: the couples' velocity, (B, ...).
            x_t: where both were asked for, (B, ...).
            t: when, (B,). On the straight path the velocities lead to the images x_t - t answer and x_t - t target.
        """


@dataclass(frozen=True)
class SquaredError:
    """|answer - target|^2 per dimension (Lipman et al. 2023, arXiv 2210.02747, eq. 9)."""

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Loss`."""
        del x_t, t
        return (answer - target).float().square().mean()


SQUARED = SquaredError()


def make_loss(config: configs.Loss, device: torch.device | str = "cpu") -> Loss:
    """The loss as an object. Raises InputError where LPIPS's weights cannot be read."""
    if isinstance(config, configs.LpipsHuber):
        lpips = load_lpips(config.network, config.features, config.linear, config.size)
        return LpipsHuber(lpips.to(device), PseudoHuber(config.c))
    if isinstance(config, configs.PseudoHuber):
        return PseudoHuber(config.c)
    return SQUARED
