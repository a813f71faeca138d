"""Pairs of two kinds in one training, in an exact ratio: those that begin with noise, and those that begin with data.

A student that sees generated pairs alone drifts from the data, as each round learns the errors of the last; pairs that
begin with real images prevent it (Kim et al. 2024, arXiv 2410.07815; Lee et al. 2024, arXiv 2405.20320). NFM's bank
holds such pairs; for other couplings the student's ODE, solved backwards, gives them.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import torch
from torch import Generator, Tensor

from pipeline.couplings import Banked, Coupling, rows_of_rank
from pipeline.data.examples import Examples
from pipeline.runtime.seeds import generator
from pipeline.training.truncated import Truncated
from storage.required import required

Pairs = tuple[Examples | Truncated, Banked | Truncated]
LARGEST_DENOMINATOR = 10**6  # of a share


class Mixture(Coupling):
    """Both the examples and the coupling of a `FlowBatches`.

    Rows 0 ... G - 1 are the generated pairs, G ... G + F - 1 the forward ones. Of the first n images of a training
    floor(n share) are forward, whatever the batch or the number of ranks, evenly spread. Each kind has its
    order, without replacement within its epochs.

    Args:
        generated: images by the student, and their noise, a bank of one draw.
        forward: training images, and a bank of their noises; needed where share > 0.
        share: of forward pairs, 0 to 1.
        rank, world: each rank reads the noises of its part of the batch.
    """

    def __init__(
        self, generated: Pairs, forward: Pairs | None = None, share: float = 0.0, rank: int = 0, world: int = 1
    ) -> None:
        assert forward is not None or not share
        self.rank, self.world = rank, world
        self.generated, self.forward = generated, forward
        self.share = Fraction(share).limit_denominator(LARGEST_DENOMINATOR)

    @property
    def streamed(self) -> bool:
        return any(bank.streamed for _, bank in filter(None, (self.generated, self.forward)))

    def for_one_rank(self) -> Mixture:
        return Mixture(self.generated, self.forward, float(self.share))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.generated[0].shape

    def __len__(self) -> int:
        return len(self.generated[0]) + (len(self.forward[0]) if self.forward else 0)

    def rows(self, seed: int, step: int, batch: int) -> Tensor:
        """(batch,) int64 rows of the images number step * batch and so on."""
        numbers = torch.arange(step * batch, (step + 1) * batch)
        above, below = self.share.numerator, self.share.denominator
        before = numbers * above // below  # forward pairs among the images before each
        forward = (numbers + 1) * above // below > before
        count = len(self.generated[0])
        rows = torch.empty_like(numbers)
        rows[~forward] = _ordered((numbers - before)[~forward], seed, "generated", count)
        if forward.any():
            rows[forward] = count + _ordered(
                before[forward], seed, "forward", len(required(self.forward, "forward pairs")[0])
            )
        return rows

    def pixels(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) float32 images of rows (B,)."""
        x = torch.empty(len(rows), *self.generated[0].shape)
        for here, (examples, _), first in self._kinds(rows):
            x[here] = examples.pixels(rows[here] - first).float()
        return x

    def classes(self, rows: Tensor) -> Tensor | None:
        """(B,) int64 labels of rows, None where there are no classes."""
        if self.generated[0].labels is None:
            return None
        labels = torch.empty_like(rows)
        for here, (examples, _), first in self._kinds(rows):
            labels[here] = required(examples.classes(rows[here] - first), "the class of a pair")
        return labels

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `pipeline.couplings.Coupling.noise_for`."""
        z, read = torch.empty_like(x), rows_of_rank(len(rows), self.rank, self.world)
        for here, (_, bank), first in self._kinds(rows):
            of_kind = None if labels is None else labels[here]
            z[here] = bank.noise_for(x[here], of_kind, rows[here] - first, generator, read[here])
        return z

    def _kinds(self, rows: Tensor) -> list[tuple[Tensor, Pairs, int]]:
        """Which of the rows are of a kind, the kind, and its first row; kinds without rows are left out."""
        count = len(self.generated[0])
        kinds = [(rows < count, self.generated, 0)]
        if self.forward is not None:
            kinds.append((rows >= count, self.forward, count))
        return [kind for kind in kinds if kind[0].any()]


def _ordered(places: Tensor, seed: int, kind: str, count: int) -> Tensor:
    """(n,) rows at these places of an endless order, in which every `count` places hold each row once."""
    rows = torch.empty_like(places)
    for epoch in torch.unique(places // count).tolist():
        here = places // count == epoch
        rows[here] = _order(seed, kind, epoch, count)[places[here] % count]
    return rows


@lru_cache(maxsize=4)
def _order(seed: int, kind: str, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", kind, epoch))
