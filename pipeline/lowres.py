"""Small versions of images, as conditions for super-resolution (SR3: Saharia et al. 2021, arXiv 2104.07636).

The condition is what a file of the small image would hold, enlarged to the size of the large one so that a network can
take it as further input channels. It is enlarged by repeating pixels: that keeps every value and
adds none, in range and without rounding, and what a smoother filter would compute a convolution can learn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics import quantise, to_unit
from storage.errors import InputError


def low_resolution(x: Tensor, factor: int, levels: int = 256) -> Tensor:
    """Average blocks of `factor` x `factor` pixels, round to grey levels, repeat each to the block's size.

    Images are taken as they would be stored: values between levels are rounded first, as by `quantise`. Means of levels
    are exact, halves go up.

    Args:
        x: (B, C, H, W) floating in [-1, 1], such as `Examples.pixels`. Not latents: they have no grey levels.
        factor: how many times smaller, to a side; 1 gives x rounded.
        levels: grey levels of the data.

    Returns:
        (B, C, H, W) float32 on the device of x, constant on each block.

    Raises:
        InputError: H or W is no multiple of `factor`, or as for `quantise`.
    """
    batch, channels, height, width = x.shape
    if factor < 1 or height % factor or width % factor:
        raise InputError(f"Images of {height}x{width} shrink by a factor of both", factor, "Choose a divisor.")
    grey = torch.from_numpy(quantise(x.detach().cpu().numpy(), levels)).long()
    blocks = grey.view(batch, channels, height // factor, factor, width // factor, factor)
    area = factor**2
    small = (2 * blocks.sum((3, 5)) + area) // (2 * area)  # integers: no mean of levels is a hair below its half
    values = torch.from_numpy(to_unit(small.to(torch.uint8).numpy(), levels))
    return values.repeat_interleave(factor, 2).repeat_interleave(factor, 3).to(x.device)
