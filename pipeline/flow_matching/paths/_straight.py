"""The straight paths: x_t goes from x to z along a line at constant speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.flow_matching.paths._base import Coefficients, GaussianPath


@dataclass(frozen=True)
class Linear(GaussianPath):
    """x_t = (1 - t) x + t z, v = z - x: a = 1 - t, s = t.

    Lipman et al. 2023 (arXiv 2210.02747, eq. 20-23 with sigma_min = 0), Liu et al. 2023 (arXiv 2209.03003), NFM
    (arXiv 2603.09014). The line is the path whatever the coupling of x and z.
    """

    straight: ClassVar[bool] = True

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)

    # The base class computes the same, with multiplications by one.

    def target_velocity(self, x: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
        """v = z - x, the same all along the path."""
        del t
        return z - x

    def start(self, z: Tensor) -> Tensor:
        """z itself."""
        return z


#: The path wherever none is named.
LINEAR = Linear()


@dataclass(frozen=True)
class OptimalTransport(GaussianPath):
    """a = 1 - t, s = sigma_min + (1 - sigma_min) t (Lipman et al. 2023, arXiv 2210.02747, eq. 20-23).

    Straight like `Linear`, but it ends in a Gaussian of std sigma_min around x, so that every velocity is finite on all
    of [0, 1], and samples keep that noise. It is optimal transport for one x, between N(0, I) and N(x, sigma_min^2 I);
    that of all data at once is a matter of the coupling.

    Attributes:
        sigma_min: std left at the data, for pixels in [-1, 1]; between 0 and 1.
    """

    sigma_min: float

    straight: ClassVar[bool] = True

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        # t + sigma_min (1 - t), so that s(1) is 1 without rounding.
        return Coefficients(1 - t, t + self.sigma_min * (1 - t), -one, (1 - self.sigma_min) * one)
