"""Between images of networks, in [-1, 1], and images of files, in 0..levels-1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from storage.errors import InputError


def quantise(x: np.ndarray, levels: int = 256) -> np.ndarray:
    """The nearest level, halves up, out-of-range values at the ends: u = floor((x + 1)/2 (levels - 1) + 1/2).

    Truncating instead, as is common, is off by one for many of the levels of exact 8-bit images.

    Args:
        x: (...) floating, nominally in [-1, 1].
        levels: number of grey levels, 2 to 256; the 8x8 digits have 17.

    Returns:
        (...) uint8 in 0..levels-1.

    Raises:
        InputError: levels out of range, or x holds NaN.
    """
    _check(levels)
    bad = int(np.isnan(x).sum())
    if bad:
        raise InputError("Images must not hold NaN", f"{bad} of {x.size} values", "Check how they were sampled.")
    # In float64, as float32 would round values a hair below one half onto it.
    u = np.floor((x.astype(np.float64) + 1) / 2 * (levels - 1) + 0.5)
    return u.clip(0, levels - 1).astype(np.uint8)


def to_unit(u: np.ndarray, levels: int = 256) -> np.ndarray:
    """x = 2 u / (levels - 1) - 1: levels (...) uint8 to float32 in [-1, 1]. `quantise` undoes it.

    Raises:
        InputError: `levels` out of range or a level beyond it.
    """
    _check(levels)
    if u.size and int(u.max()) >= levels:
        raise InputError(f"Levels must be 0 to {levels - 1}", int(u.max()), "Give the true number of grey levels.")
    return u.astype(np.float32) * np.float32(2) / np.float32(levels - 1) - np.float32(1)


def as_stored(x: Tensor, levels: int = 256) -> Tensor:
    """Images (...) in [-1, 1], on any device, after a file has held them: float32 on the CPU.

    Raises:
        InputError: as `quantise`.
    """
    return torch.from_numpy(to_unit(quantise(x.cpu().numpy(), levels), levels))


def _check(levels: int) -> None:
    if not 2 <= levels <= 256:
        raise InputError("levels must be 2 to 256", levels, "8-bit images have 256.")
