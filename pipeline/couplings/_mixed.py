"""Two couplings in one training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, gaussian_like


@dataclass(frozen=True)
class Mixed:
    """The noise of `coupling`, but fresh noise for a random share of the images, chosen anew at each visit.

    The student then sees the whole of N(0, I) at t = 1, also where the coupling's noise is not quite Gaussian. LOOM-CFM
    mixes in the same way (Davtyan et al. 2025, arXiv 2603.15279, Appendix F, approach 3).

    Args:
        independent: probability of fresh noise, 0 to 1.
    """

    coupling: Coupling
    independent: float

    def pair(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.pair`."""
        fresh = gaussian_like(x, generator)
        replaced = torch.rand(len(x), generator=generator) < self.independent
        z = self.coupling.pair(x, labels, rows, generator)
        return torch.where(replaced.view(-1, 1, 1, 1).to(x.device), fresh, z)
