"""From log-densities of dequantised images to bits per dimension, with errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from models import tarflow
from storage.errors import InputError


@dataclass(frozen=True)
class BitsPerDimension:
    """A mean over images with its errors.

    Attributes:
        mean: bits per dimension.
        standard_error: of the mean, from the spread between images. That of dequantisation and of the probes is part
            of it, as each image has separate draws. NaN for one image.
        probe_error: the part of it that is due to the probes, 0 if divergences were exact.
        images: their number.
    """

    mean: float
    standard_error: float
    probe_error: float
    images: int


def bin_width(levels: int) -> float:
    """Distance of neighbouring grey levels that are spread evenly over [-1, 1], both ends among them: 2 / (L - 1).

    Raises:
        InputError: fewer than two levels.
    """
    if levels < 2:
        raise InputError("Images must have at least 2 grey levels", levels, "8-bit images have 256.")
    return 2 / (levels - 1)


def dequantise(x: Tensor, levels: int, u: Tensor) -> Tensor:
    """x + (u - 1/2) bin width: spread evenly over the bins around their levels.

    Args:
        x: (B, C, H, W), grey levels v as 2 v / (levels - 1) - 1, see `pipeline.data.levels.to_unit`.
        levels: number of grey levels L.
        u: same shape, uniform on (0, 1), see `pipeline.runtime.noise.uniform`.

    Raises:
        InputError: fewer than two levels.
    """
    return x + (u - 0.5) * bin_width(levels)


def bits_per_dimension(
    log_density: Tensor, shape: tuple[int, ...], levels: int, probe_error: Tensor | None = None
) -> BitsPerDimension:
    """Bits per dimension of dequantised images: an upper bound, on average, of what their grey levels need.

    See `models.tarflow.bits_per_dimension` for the bound and its source, here with the bins of `dequantise`. The number
    is not comparable with a teacher's, which is of the density of images with Gaussian noise. A student that has only
    seen exact grey levels has not seen images like these.

    Args:
        log_density: (N,) nats, from all batches.
        shape: of one image, (C, H, W).
        levels: number of grey levels.
        probe_error: (N,) standard errors of the above, nats; None where they are exact.

    Raises:
        InputError: fewer than two levels, no images, or two numbers of images.
    """
    images, dims = len(log_density), math.prod(shape)
    if not images or (probe_error is not None and len(probe_error) != images):
        counts = (images, None if probe_error is None else len(probe_error))
        raise InputError("log_density and probe_error must be of the same images, at least 1", counts, "Give both.")
    bits = tarflow.bits_per_dimension(log_density.double(), dims, bin_width(levels))
    spread = float(bits.std()) / images**0.5 if images > 1 else math.nan
    from_probes = 0.0 if probe_error is None else float(probe_error.double().norm()) / images / dims / math.log(2)
    return BitsPerDimension(float(bits.mean()), spread, from_probes, images)
