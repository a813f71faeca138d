"""Bilinear resizing as TensorFlow 1 did it, which is part of the definition of the Frechet Inception Distance."""

import torch
from torch import Tensor


def resize_bilinear(images: Tensor, size: int) -> Tensor:
    """Resize to ``size`` x ``size`` like ``tf.image.resize_bilinear(align_corners=False)`` of TensorFlow 1.

    Output pixel i lies at i * (old size / new size) of the input: the corners' left and upper edges coincide, not
    their centres, and what lies beyond the last pixel repeats it. ``torch.nn.functional.interpolate`` instead puts it
    at (i + 1/2) * (old / new) - 1/2, a shift of half an input pixel when enlarging, which changes the features. Neither
    smooths before it makes images smaller.

    Args:
        images: (B, C, H, W), floating point.
        size: new height and width, pixels.

    Returns:
        (B, C, size, size) in the dtype of ``images``.

    Raises:
        ValueError: if an image has no pixels or ``size`` is not positive.
    """
    if size < 1 or min(images.shape[-2:]) < 1:
        raise ValueError(f"images and size must have pixels, got {tuple(images.shape)} and size {size}")
    below, above, share = _neighbours(images.shape[-1], size, images)
    left, right = images[..., below], images[..., above]
    rows = left + (right - left) * share  # (B, C, H, size); along a row first, as the TensorFlow kernel does
    below, above, share = _neighbours(images.shape[-2], size, images)
    upper, lower = rows[..., below, :], rows[..., above, :]
    return upper + (lower - upper) * share[:, None]


def _neighbours(old: int, new: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis, for each new pixel: the pixel before it, the one after it, and how far it is between them."""
    # The position is a float32 product there, so here too: another rounding could choose another neighbour.
    scale = torch.tensor(old, dtype=torch.float32) / new
    position = torch.arange(new, dtype=torch.float32) * scale  # (new,)
    below = position.floor().long().clamp(max=old - 1)
    above = (below + 1).clamp(max=old - 1)
    return below.to(like.device), above.to(like.device), (position - below).to(like)
