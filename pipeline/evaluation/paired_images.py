"""How near samples come to the images that they should be: the mean PSNR and SSIM of image-to-image generation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from pipeline.metrics import psnr, ssim, ssim_window


@dataclass
class PairedImageMetrics:
    """Collects both figures image by image; means do not depend on the order of batches, nor on ranks.

    The PSNR of equal images is infinite, and one of them would be the mean of all. It counts as that of images which
    differ by one grey level in one value: the nearest that others can be.
    """

    levels: int
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    window: int = 0

    def update(self, images: Tensor, targets: Tensor) -> None:
        """Add samples and their targets, (B, C, H, W) float32 in [-1, 1], both at grey levels."""
        nearest = (2 / (self.levels - 1)) ** 2 / images[0].numel()  # mean squared error
        self.psnr += psnr(images, targets).clamp(max=10 * math.log10(4 / nearest)).tolist()
        self.ssim += ssim(images, targets).tolist()
        self.window = ssim_window(min(images.shape[-2:]))

    def merge(self, other: Self) -> Self:
        """What both have collected."""
        return type(self)(self.levels, self.psnr + other.psnr, self.ssim + other.ssim, self.window or other.window)

    def figures(self) -> list[tuple[str, float, dict[str, Any]]]:
        """Name, mean over images (PSNR in dB), and the protocol's facts; empty without images."""
        if not self.psnr:
            return []
        count = len(self.psnr)
        return [
            ("PSNR", math.fsum(self.psnr) / count, {"target": "the test image itself"}),
            (
                "SSIM",
                math.fsum(self.ssim) / count,
                {"target": "the test image itself", "window": f"{self.window}x{self.window} Gaussian, sigma 1.5"},
            ),
        ]
