"""The variance-exploding diffusion path, that of score matching with Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.flow_matching.paths._base import Coefficients, GaussianPath, finite
from storage.errors import InputError


@dataclass(frozen=True)
class VarianceExploding(GaussianPath):
    """a = 1, s = sigma_min (sigma_max / sigma_min)^t (Lipman et al. 2023, arXiv 2210.02747, eq. 16-17).

    The geometric schedule is that of Song et al. 2021 (arXiv 2011.13456, app. C). s'/s is constant, so every velocity
    is finite on all of [0, 1]; the path ends at std sigma_min, not at 0, and samples keep that noise.

    Data never fade, a(1) = 1: sigma_max must drown them, as sampling starts from sigma_max z (see `start`). Song &
    Ermon 2020 (arXiv 2006.09011, sec. 3.1) choose the largest distance of two images of the data set, about 10 for the
    8x8 digits in [-1, 1].

    Attributes:
        sigma_min, sigma_max: std at the data and at the noise, for pixels in [-1, 1].

    Raises:
        InputError: not 0 < sigma_min < sigma_max.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not (finite(self.sigma_min, self.sigma_max) and 0 < self.sigma_min < self.sigma_max):
            raise InputError(
                "The variance-exploding path has 0 < sigma_min < sigma_max",
                (self.sigma_min, self.sigma_max),
                "Use e.g. 0.01 and the largest distance of two images.",
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        growth = math.log(self.sigma_max / self.sigma_min)
        s = self.sigma_min * torch.exp(growth * t)
        return Coefficients(torch.ones_like(t), s, torch.zeros_like(t), growth * s)
