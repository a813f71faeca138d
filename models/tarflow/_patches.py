"""Images as sequences of patches, and back."""

from torch import Tensor


def patchify(image: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row; inside a patch the channel varies slowest.

    Args:
        image: (B, C, H, W), with H and W multiples of ``patch``.
        patch: side of a patch in pixels, p.

    Returns:
        (B, T, D), with T = (H/p)(W/p) and D = C p^2.
    """
    b, c, height, width = image.shape
    grid = image.view(b, c, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(tokens: Tensor, channels: int, patch: int) -> Tensor:
    """Put the patches of square images back together: (B, T, D) -> (B, C, H, W). The inverse of `patchify`."""
    b, t, _ = tokens.shape
    side = round(t**0.5)
    grid = tokens.view(b, side, side, channels, patch, patch)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(b, channels, side * patch, side * patch)
