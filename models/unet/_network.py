"""The U-Net itself: down, across and up, with every feature map of the way down kept for the way up."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models._velocity import check_inputs, embedded_times, with_condition
from models.unet._config import UNetConfig
from models.unet._layers import Downsample, GroupNorm, ResidualBlock, SelfAttention, UNetLevel, Upsample, zeroed


class UNet(nn.Module):
    """ADM U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233, sec. 3) predicting a velocity.

    As in the CIFAR-10 flow matching literature, the embedding shifts features without scaling them and resolutions
    change by a single convolution. An untrained network returns zeros.

    Args:
        config: the architecture.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        emb = 4 * config.base  # E
        self.embed_time = nn.Sequential(nn.Linear(config.base, emb), nn.SiLU(), nn.Linear(emb, emb))
        # Of t - r. Its last layer starts at zero: at first u(x, r, t) is the velocity at t, whatever r.
        self.embed_span = (
            nn.Sequential(nn.Linear(config.base, emb), nn.SiLU(), zeroed(nn.Linear(emb, emb)))
            if config.interval
            else None
        )
        # Row 0 is the null class: label -1 finds it, and every label below -1 is out of the table, also on a GPU.
        self.embed_label = nn.Embedding(config.classes + 1, emb) if config.classes else None

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

        self.up = nn.ModuleList()
        for level, (outputs, resolution) in reversed(list(enumerate(levels))):
            for _ in range(config.blocks + 1):
                self.up.append(UNetLevel(residual(width + kept.pop(), outputs), *attention(outputs, resolution)))
                width = outputs
            if level > 0:
                self.up[-1].append(Upsample(width))
        self.leave = nn.Sequential(GroupNorm(width), nn.SiLU(), zeroed(nn.Conv2d(width, config.channels, 3, padding=1)))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        r: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity at x.

        Args:
            x: (B, C, H, W) images on the way from data to noise.
            t: (B,) or (), floating point: times in [0, 1], 0 at the data and 1 at the noise.
            labels: (B,) int64 in [-1, classes), -1 being the null class; None is the null class for all.
            condition: (B, condition_channels, H, W) in the dtype of ``x``: an image of the same size that says what to
                make, such as a low resolution one, resized (SR3, Saharia et al. 2021, arXiv 2104.07636). It is
                given to networks with condition channels, and to no other.
            r: (B,) or (), floating point, 0 <= r <= t: the other end of the interval whose average velocity is
                predicted, for networks with ``interval`` only; None is r = t.

        Returns:
            (B, C, H, W) in the dtype of ``x``, also under autocast.

        Raises:
            ValueError: if a shape or dtype is wrong, if labels reach an unconditional network, if a label is out of
                range (seen on the CPU only), or if a condition is given or missing against the config.
        """
        check_inputs(self.config, x, t, labels, condition, r)
        emb = embedded_times(self, t, r, self.config.base, x)  # (B, E)
        if self.embed_label is not None:
            if labels is None:
                labels = torch.full((len(x),), -1, device=x.device)
            emb = emb + self.embed_label(labels + 1)
        emb = F.silu(emb)  # every residual block wants it activated: once is enough

        h = self.enter(with_condition(x, condition))  # (B, base, H, W)
        kept = [h]
        for stage in self.down:
            h = stage(h, emb)
            kept.append(h)
        h = self.middle(h, emb)
        for stage in self.up:
            h = stage(torch.cat([h, kept.pop()], dim=1), emb)
        return self.leave(h).to(x.dtype)
