"""The teacher's coupling without a bank: each visit encodes the image with fresh noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from models.tarflow import TarFlow
from pipeline.couplings._banked import rows_of_rank
from pipeline.couplings._base import Coupling
from pipeline.couplings._standard import Standard


@dataclass(frozen=True)
class Online(Coupling):
    """z = standard(f(x + eta eps, c), c) with a fresh eps at each visit (NFM, arXiv 2603.09014), where a bank has K.

    Args:
        flow: the teacher, on the device that computes.
        noise: eta of the teacher's training.
        standard: division by sigma_f, and whitening where the bank has it.
        rank, world: each rank encodes the part of the batch that it trains on. The other rows stay zero: no rank reads
            them.
    """

    flow: TarFlow
    noise: float
    standard: Standard
    rank: int = 0
    world: int = 1

    def for_one_rank(self) -> Online:
        return replace(self, rank=0, world=1)

    @torch.no_grad()
    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`."""
        del rows
        eps = torch.randn(x.shape, generator=generator)
        z = torch.zeros_like(x)
        mine = rows_of_rank(len(x), self.rank, self.world)
        device = next(self.flow.parameters()).device
        y = (x[mine] + self.noise * eps[mine].to(x.device)).to(device)
        classes = None if labels is None else labels[mine].to(device)
        z[mine] = self.standard(self.flow.encode(y, classes), classes).to(x.device)
        return z
