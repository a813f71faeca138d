"""How near images come to those they should be, pixel by pixel: PSNR and SSIM, for image-to-image generation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from storage.errors import InputError

_K1, _K2, _SIGMA, _WINDOW = 0.01, 0.03, 1.5, 11  # Wang et al. 2004, sec. III-B and III-C


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, 10 log10(L^2 / MSE) with L = 2, the range of pixels, in dB.

    Args:
        images, targets: (B, C, H, W) in [-1, 1]. As stored: quantise them first.

    Returns:
        (B,) float64, infinite where they are equal. Report the mean over images.

    Raises:
        InputError: different shapes.
    """
    _check(images, targets)
    error = (images.double() - targets.double()).square().flatten(1).mean(1)  # (B,)
    return 10 * torch.log10(4 / error)


def ssim_window(side: int) -> int:
    """Side of the window that `ssim` takes for images of this shorter side: 11, or the largest odd one that fits."""
    return min(_WINDOW, side - 1 + side % 2)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004, IEEE TIP 13(4), eq. 13 to 17).

    Local means, variances and covariance under an 11x11 Gaussian window of sigma 1.5 pixels and total 1, at all places
    where the window lies inside the image; K1 = 0.01, K2 = 0.03. Images under 11 pixels take the smaller window of
    `ssim_window`, which a protocol must state. Colours are measured one by one and averaged.

    Args:
        images, targets: (B, C, H, W) in [-1, 1].

    Returns:
        (B,) float64, up to 1, which is for equal images alone. Report the mean over images.

    Raises:
        InputError: different shapes.
    """
    _check(images, targets)
    # Intensities from 0 to L = 1: the luminance term compares means as a ratio, so where 0 lies matters.
    x, y = ((side.double().flatten(0, 1)[:, None] + 1) / 2 for side in (images, targets))  # (B C, 1, H, W)
    window = _gaussian(ssim_window(min(images.shape[-2:])), x.device)

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, window[None, None, :, None]), window[None, None, None, :])

    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).view(len(images), -1).mean(1)


def _gaussian(size: int, device: torch.device) -> Tensor:
    """(size,) float64 of sum 1: the window is its product with itself."""
    offset = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2))
    return weights / weights.sum()


def _check(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.ndim != 4:
        shapes = (tuple(images.shape), tuple(targets.shape))
        raise InputError(
            "images and targets must have one shape (B, C, H, W)", shapes, "Pair each image with its target."
        )
