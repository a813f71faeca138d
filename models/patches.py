"""Images as sequences of patches, and back."""

import math

from torch import Tensor


def patchify(image: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row; inside a patch the channel varies slowest.

    Args:
        image: (B, C, H, W), with H and W multiples of ``patch``.
        patch: side of a patch in pixels, p.

    Returns:
        (B, T, D), contiguous, with T = (H/p)(W/p) and D = C p^2.
    """
    b, c, height, width = image.shape
    grid = image.reshape(b, c, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """Put the patches of square images back together: (B, T, C p^2) -> (B, C, H, W). The inverse of `patchify`."""
    b, t, _ = tokens.shape
    side = math.isqrt(t)
    grid = tokens.reshape(b, side, side, -1, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(b, -1, side * patch, side * patch)
