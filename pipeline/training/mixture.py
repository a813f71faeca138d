"""Pairs of two kinds in one training, in an exact ratio: those that begin with noise, and those that begin with data.

A student of its own pairs alone drifts from the data, for each round learns the last one's errors as truth; pairs that
begin with real images hold it there (Kim et al. 2024, arXiv 2410.07815; Lee et al. 2024, arXiv 2405.20320). NFM's bank
holds such pairs; for other couplings the student's ODE, followed backwards, makes them.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import torch
from torch import Generator, Tensor

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.runtime.seeds import generator
from storage.errors import InputError

FINEST = 10**6  # the largest denominator of a share


class Mixture:
    """Both the examples and the coupling of a `FlowBatches`.

    Rows 0 ... G - 1 are the generated pairs, G ... G + F - 1 the forward ones. Of the first n images of a training
    floor(n share) are forward, whatever the batch or the number of ranks, evenly spread. Each kind comes in an order of
    its own, without replacement within its epochs.

    Args:
        generated: images that were made of noise, and the noise, a bank of one draw.
        forward: training images, and a bank of noises of theirs; needed where share > 0.
        share: of forward pairs, 0 to 1.

    Raises:
        InputError: share lies outside [0, 1], or forward pairs are asked for and there are none.
    """

    def __init__(
        self, generated: tuple[Examples, Banked], forward: tuple[Examples, Banked] | None = None, share: float = 0.0
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError("A share lies in [0, 1]", share, "Use e.g. 0.2.")
        if share and forward is None:
            raise InputError("Forward pairs come from a bank", share, "Set mix.forward to 0.")
        self.generated, self.forward = generated, forward
        self.share = Fraction(share).limit_denominator(FINEST)

    def __len__(self) -> int:
        return len(self.generated[0]) + (len(self.forward[0]) if self.forward else 0)

    def rows(self, seed: int, step: int, batch: int) -> Tensor:
        """(batch,) int64 rows of the images number step * batch and so on."""
        numbers = torch.arange(step * batch, (step + 1) * batch)
        above, below = self.share.numerator, self.share.denominator
        before = numbers * above // below  # forward ones among the images before each
        chosen = (numbers + 1) * above // below > before
        made = len(self.generated[0])
        rows = torch.empty_like(numbers)
        rows[~chosen] = _ordered((numbers - before)[~chosen], seed, "generated", made)
        if chosen.any():
            rows[chosen] = made + _ordered(before[chosen], seed, "forward", len(self.forward[0]))
        return rows

    def pixels(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) float32 images of rows (B,)."""
        made = len(self.generated[0])
        x = torch.empty(len(rows), *self.generated[0].shape)
        for here, (examples, _), first in self._kinds(rows, made):
            x[here] = examples.pixels(rows[here] - first).float()
        return x

    def classes(self, rows: Tensor) -> Tensor | None:
        """(B,) int64 labels of rows, None where there are no classes."""
        if self.generated[0].labels is None:
            return None
        labels = torch.empty_like(rows)
        for here, (examples, _), first in self._kinds(rows, len(self.generated[0])):
            labels[here] = examples.classes(rows[here] - first)
        return labels

    def pair(self, x: Tensor, labels: Tensor | None, rows: Tensor, draws: Generator) -> Tensor:
        """See `pipeline.couplings.Coupling.pair`."""
        z = torch.empty_like(x)
        for here, (_, bank), first in self._kinds(rows, len(self.generated[0])):
            z[here] = bank.pair(x[here], None if labels is None else labels[here], rows[here] - first, draws)
        return z

    def _kinds(self, rows: Tensor, made: int) -> list[tuple[Tensor, tuple[Examples, Banked], int]]:
        """Which of the rows are of a kind, the kind, and its first row; kinds without rows are left out."""
        kinds = ((rows < made, self.generated, 0), (rows >= made, self.forward, made))
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
