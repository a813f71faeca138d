"""The conditional optimal-transport path of the flow matching paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.flow_matching.paths._base import Coefficients, GaussianPath, finite
from storage.errors import InputError


@dataclass(frozen=True)
class OptimalTransport(GaussianPath):
    """a = 1 - t, s = sigma_min + (1 - sigma_min) t (Lipman et al. 2023, arXiv 2210.02747, eq. 20-23).

    Straight like `Linear`, but it ends in a Gaussian of std sigma_min around x, so that every velocity is finite on all
    of [0, 1], and samples keep that noise. It is optimal transport for one x, between N(0, I) and N(x, sigma_min^2 I);
    that of all data at once is a matter of the coupling.

    Attributes:
        sigma_min: std left at the data, for pixels in [-1, 1].

    Raises:
        InputError: sigma_min is not between 0 and 1.
    """

    sigma_min: float

    straight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (finite(self.sigma_min) and 0 < self.sigma_min < 1):
            raise InputError(
                "The optimal-transport path has 0 < sigma_min < 1", self.sigma_min, "With 0 it is the linear path."
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        # t + sigma_min (1 - t), so that s(1) is 1 without rounding.
        return Coefficients(1 - t, t + self.sigma_min * (1 - t), -one, (1 - self.sigma_min) * one)
