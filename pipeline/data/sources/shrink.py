"""Smaller images by area averaging, exact in integers."""

from __future__ import annotations

import numpy as np

from storage.errors import RecipeError

_CHUNK = 4096  # images


def shrink(images: np.ndarray, size: int | None) -> np.ndarray:
    """Each new pixel is the mean of the square that it covers, pixels on its edge by the share it covers, halves up.

    With n the old side, new pixel i covers [i n, (i + 1) n) and old pixel j [j size, (j + 1) size), on one ruler. The
    overlaps are integers, so no mean is rounded to the wrong side of a half. 28 to 14 is the mean of 2x2 pixels.

    Args:
        images: (N, C, n, n) uint8.
        size: new side, at most n; None leaves the images as they are.

    Returns:
        (N, C, size, size) uint8.

    Raises:
        RecipeError: `size` > n.
    """
    n = images.shape[-1]
    if size in (None, n):
        return images
    if size > n:
        raise RecipeError(f"data.size must be at most {n}, the side of these images", size, "Choose a smaller size.")
    new, old = np.arange(size)[:, None] * n, np.arange(n) * size
    overlaps = (np.minimum(new + n, old + size) - np.maximum(new, old)).clip(0).astype(np.float64)  # (size, n)
    shrunk = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), _CHUNK):
        sums = overlaps @ images[start : start + _CHUNK] @ overlaps.T  # integers below 2^53: exact in float64
        shrunk[start : start + _CHUNK] = (2 * sums.astype(np.int64) + n * n) // (2 * n * n)
    return shrunk
