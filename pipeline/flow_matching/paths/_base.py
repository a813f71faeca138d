"""Gaussian paths: data fade by a(t), noise grows by s(t), and the rest follows from these two."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """a(t), s(t) and their derivatives by t, each of the shape of t."""

    a: Tensor
    s: Tensor
    a_slope: Tensor
    s_slope: Tensor


class GaussianPath:
    """x_t = a(t) x + s(t) z with z ~ N(0, I): the distribution of x_t given x is N(a(t) x, s(t)^2 I).

    These are the Gaussian paths of Lipman et al. 2023 (arXiv 2210.02747, eq. 10-11) with time reversed: their t is our
    1 - t, their mu is a x, their sigma is s, their velocity our -v. t = 0 is data, t = 1 is noise. A path is defined by
    its `coefficients`; the methods here follow. Every t is a number for all rows or (B,), one time for each.

    Attributes:
        t_end: sampling ends and training times begin here, 0 unless the velocity is infinite there. What noise is left
            at that time, s(t_end), stays in the samples: no step removes it silently.
        straight: given x and z, x_t goes at constant speed along a line. Then v is of the order of the data at all
            times, and networks learn it as it is (see `velocity_of`).
    """

    t_end: ClassVar[float] = 0.0
    straight: ClassVar[bool] = False

    def coefficients(self, t: Tensor) -> Coefficients:
        """a, s, a' and s' at times t of any shape, in the precision of t."""
        raise NotImplementedError

    def interpolate(self, x: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
        """x_t = a(t) x + s(t) z for data x and noise z of one shape, (B, ...)."""
        at = self.coefficients(as_column(t, x))
        return at.a * x + at.s * z

    def target_velocity(self, x: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
        """v = d x_t / dt = a'(t) x + s'(t) z, shaped like x: what flow matching regresses on (eq. 14)."""
        at = self.coefficients(as_column(t, x))
        return at.a_slope * x + at.s_slope * z

    def start(self, z: Tensor) -> Tensor:
        """The state at t = 1 that sampling starts from, for noise z ~ N(0, I), (B, ...): s(1) z.

        The part of the data in x_1, a(1) x, is unknown when sampling and left out. Where a(1) > 0 samples thus start
        from a distribution that is off by a(1) |x| in Wasserstein distance, as all diffusion models do (sec. 4.1).
        """
        return self.coefficients(as_column(1.0, z)).s * z

    def times(self, t: Tensor) -> Tensor:
        """Times of any shape from [0, 1] onto [t_end, 1], where 1 stays 1: for training times and for time grids."""
        return t + self.t_end * (1 - t) if self.t_end else t


def as_column(t: Tensor | float, x: Tensor) -> Tensor:
    """Times (B,) as (B, 1, ..., 1), so that they multiply x (B, ...) row by row; a number as a tensor of shape ()."""
    if isinstance(t, Tensor):
        return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t
    return torch.tensor(t, dtype=torch.float64)  # no dimensions: it leaves the precision of x alone
