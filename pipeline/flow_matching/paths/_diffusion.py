"""The two diffusion paths: variance preserving (DDPM) and variance exploding (score matching)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.flow_matching.paths._base import Coefficients, GaussianPath


@dataclass(frozen=True)
class VariancePreserving(GaussianPath):
    """a = exp(-T/2), s = sqrt(1 - exp(-T)), so that a^2 + s^2 = 1 (Lipman et al. 2023, arXiv 2210.02747, eq. 18-19).

        beta(t) = beta_min + t (beta_max - beta_min)        T(t) = integral of beta from 0 to t
        a' = -beta a / 2                                    s' = beta a^2 / (2 s)

    The schedule and its defaults are those of the paper (app. E.1) and of Song et al. 2021 (arXiv 2011.13456, app. C);
    with them a(1) = 0.0066.

    s' goes to infinity as t goes to 0. So times end at t_end = 1e-5, as in the paper: there s = 1e-3, an eighth of the
    distance between grey levels of 8 bits in [-1, 1], but s' = 50. A solver that evaluates the velocity at its last
    time, as Heun and RK4 do, there multiplies the network's error by as much; Euler and midpoint do not.

    Attributes:
        beta_min, beta_max: rates at which noise comes in at the data and at the noise, per unit of time;
            0 < beta_min <= beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    t_end: ClassVar[float] = 1e-5

    def coefficients(self, t: Tensor) -> Coefficients:
        beta = self.beta_min + t * (self.beta_max - self.beta_min)
        area = t * (self.beta_min + beta) / 2  # T(t), a trapezium
        a, s = torch.exp(-area / 2), torch.expm1(-area).neg().sqrt()  # 1 - exp(-T) would be rounding error near t = 0
        return Coefficients(a, s, -beta * a / 2, beta * a.square() / (2 * s))


@dataclass(frozen=True)
class VarianceExploding(GaussianPath):
    """a = 1, s = sigma_min (sigma_max / sigma_min)^t (Lipman et al. 2023, arXiv 2210.02747, eq. 16-17).

    The geometric schedule is that of Song et al. 2021 (arXiv 2011.13456, app. C). s'/s is constant, so every velocity
    is finite on all of [0, 1]; the path ends at std sigma_min, not at 0, and samples keep that noise.

    Data never fade, a(1) = 1: sigma_max must drown them, as sampling starts from sigma_max z (see `start`). Song &
    Ermon 2020 (arXiv 2006.09011, sec. 3.1) choose the largest distance of two images of the data set, about 10 for the
    8x8 digits in [-1, 1].

    Attributes:
        sigma_min, sigma_max: std at the data and at the noise, for pixels in [-1, 1]; 0 < sigma_min < sigma_max.
    """

    sigma_min: float
    sigma_max: float

    def coefficients(self, t: Tensor) -> Coefficients:
        growth = math.log(self.sigma_max / self.sigma_min)
        s = self.sigma_min * torch.exp(growth * t)
        return Coefficients(torch.ones_like(t), s, torch.zeros_like(t), growth * s)
