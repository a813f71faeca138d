"""The loss that a recipe asks for."""

from __future__ import annotations

import torch

from pipeline import configs
from pipeline.losses._base import Loss
from pipeline.losses._huber import PseudoHuber
from pipeline.losses._lpips import load_lpips
from pipeline.losses._lpips_huber import LpipsHuber
from pipeline.losses._squared import SQUARED


def make_loss(config: configs.Loss, device: torch.device | str = "cpu") -> Loss:
    """The loss as an object. Raises InputError where LPIPS's weights cannot be read."""
    if isinstance(config, configs.LpipsHuber):
        lpips = load_lpips(config.network, config.features, config.linear, config.size)
        return LpipsHuber(lpips.to(device), PseudoHuber(config.c))
    if isinstance(config, configs.PseudoHuber):
        return PseudoHuber(config.c)
    return SQUARED
