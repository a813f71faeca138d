"""The straight path, which NFM and rectified flow take."""

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

    # Below, what the base class says of these coefficients, without its multiplications by one.

    def target_velocity(self, x: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
        """v = z - x, the same all along the path."""
        del t
        return z - x

    def start(self, z: Tensor) -> Tensor:
        """z itself."""
        return z


#: The path wherever none is named.
LINEAR = Linear()
