"""A look into a bank."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from pipeline.pictures._noise import z_diagnostics
from pipeline.pictures._tiles import labelled_rows

_SHOWN = 20  # pairs
_WIDEST = 3.0  # standard deviations from black to white


def bank_picture(z: Tensor, x: Tensor | None = None) -> Image.Image:
    """What a bank's noise looks like: its histogram and spread (see `z_diagnostics`), and some pairs of it and images.

    Args:
        z: noise, (n, C, H, W), of about unit size.
        x: its images in [-1, 1], (n, C, H, W), in the same order.
    """
    above = z_diagnostics(z)
    if z.shape[1] not in (1, 3):  # latents, which are no pictures
        return above
    rows = [("noise z", (z[:_SHOWN].float() / _WIDEST).clamp(-1, 1))]
    if x is not None:
        rows.append(("image x", x[:_SHOWN].float().clamp(-1, 1)))
    below = labelled_rows(rows)
    canvas = Image.new("RGB", (max(above.width, below.width), above.height + below.height), "white")
    canvas.paste(above, (0, 0))
    canvas.paste(below, (0, above.height))
    return canvas
