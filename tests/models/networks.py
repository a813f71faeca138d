"""Small velocity networks whose every weight acts, and inputs for them."""

import torch
from torch import Tensor, nn

from models.dit import DiT, DiTConfig
from models.unet import UNet, UNetConfig

TINY_UNET = UNetConfig(
    channels=2, size=8, base=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8, classes=3
)
TINY_DIT = DiTConfig(channels=2, size=8, patch=2, width=16, depth=2, heads=2, classes=3)


def built(config: UNetConfig | DiTConfig) -> UNet | DiT:
    return UNet(config) if isinstance(config, UNetConfig) else DiT(config)


def randomised(config: UNetConfig | DiTConfig) -> UNet | DiT:
    """A network whose zero-initialised layers are no longer zero, so that everything reaches the output."""
    torch.manual_seed(0)
    net = built(config)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1 if isinstance(net, UNet) else 0.2)
    return net


def inputs(
    config: UNetConfig | DiTConfig, batch: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, C, H, W), times (B,) in [0, 1) and labels (B,)."""
    torch.manual_seed(1)
    x = torch.randn(batch, *config.shape, dtype=dtype)
    return x, torch.rand(batch, dtype=dtype), torch.arange(batch) % max(config.classes, 1)
