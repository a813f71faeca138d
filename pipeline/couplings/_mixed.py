"""Couplings with fresh noise mixed in, so that the student sees all of N(0, I) at t = 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, gaussian_like


@dataclass(frozen=True)
class _Over(Coupling):
    coupling: Coupling

    @property
    def streamed(self) -> bool:
        return self.coupling.streamed

    def for_one_rank(self) -> Self:
        return replace(self, coupling=self.coupling.for_one_rank())


@dataclass(frozen=True)
class Mixed(_Over):
    """The noise of `coupling`, but fresh noise for a random share of the images, drawn at each visit.

    This helps where the coupling's noise is not quite Gaussian. LOOM-CFM mixes in the same way (Davtyan et al. 2025,
    arXiv 2603.15279, Appendix F, approach 3).

    Args:
        independent: probability of fresh noise, 0 to 1.
    """

    independent: float

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`."""
        fresh = gaussian_like(x, generator)
        replaced = torch.rand(len(x), generator=generator) < self.independent
        z = self.coupling.noise_for(x, labels, rows, generator)
        return torch.where(replaced.view(-1, 1, 1, 1).to(x.device), fresh, z)


@dataclass(frozen=True)
class Softened(_Over):
    """z' = sqrt(1 - s^2) z + s eps, with the noise z of `coupling` and fresh eps ~ N(0, I) at each visit.

    If z is N(0, I), so is z'. Of a covariance of z that is not, z' has the share 1 - s^2; the rest is the identity. And
    cov(z', x) = sqrt(1 - s^2) cov(z, x): paths are less straight.

    Args:
        soften: s, from 0 (the coupling) to 1 (independent noise).
    """

    soften: float

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`."""
        z = self.coupling.noise_for(x, labels, rows, generator)
        return (1 - self.soften**2) ** 0.5 * z + self.soften * gaussian_like(x, generator)
