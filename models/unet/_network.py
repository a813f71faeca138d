"""The U-Net itself: down, across and up, with every feature map of the way down kept for the way up."""

import torch
from torch import Tensor, nn

from models.unet._config import UNetConfig
from models.unet._layers import Downsample, GroupNorm, ResidualBlock, SelfAttention, UNetLevel, Upsample
from models.velocity import VelocityNetwork, zeroed


class UNet(VelocityNetwork):
    """ADM U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233, sec. 3) predicting a velocity.

    As in the CIFAR-10 flow matching literature, the embedding shifts features without scaling them and resolutions
    change by a single convolution. An untrained network returns zeros.

    Args:
        config: the architecture.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        emb = 4 * config.base  # E
        super().__init__(config, config.base, emb)

        def residual(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, emb, config.dropout)

        def attention(width: int, resolution: int) -> list[SelfAttention]:
            return [SelfAttention(width, config.head_channels)] if resolution in config.attention else []

        levels = list(zip(config.widths, config.resolutions, strict=True))
        width = config.base  # of the feature map that the next stage receives
        kept = [width]  # of the feature maps that await the way up

        self.enter = nn.Conv2d(config.channels + config.condition_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (outputs, resolution) in enumerate(levels):
            if level > 0:
                self.down.append(UNetLevel(Downsample(width)))
                kept.append(width)
            for _ in range(config.blocks):
                self.down.append(UNetLevel(residual(width, outputs), *attention(outputs, resolution)))
                width = outputs
                kept.append(width)

        self.middle = UNetLevel(
            residual(width, width), SelfAttention(width, config.head_channels), residual(width, width)
        )

        up: list[UNetLevel] = []
        for level, (outputs, resolution) in reversed(list(enumerate(levels))):
            for _ in range(config.blocks + 1):
                up.append(UNetLevel(residual(width + kept.pop(), outputs), *attention(outputs, resolution)))
                width = outputs
            if level > 0:
                up[-1].append(Upsample(width))
        self.up = nn.ModuleList(up)
        self.leave = nn.Sequential(GroupNorm(width), nn.SiLU(), zeroed(nn.Conv2d(width, config.channels, 3, padding=1)))

    def velocity(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.enter(x)  # (B, base, H, W)
        kept = [h]
        for stage in self.down:
            h = stage(h, emb)
            kept.append(h)
        h = self.middle(h, emb)
        for stage in self.up:
            h = stage(torch.cat([h, kept.pop()], dim=1), emb)
        return self.leave(h)
