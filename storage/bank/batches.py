"""Shuffled batches of a bank at training speed, from memory where it fits, else window by window."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from storage.bank.loading import BLOCK_BYTES, Arrays, Blocks, Loading
from storage.bank.shuffle import Share, Windows, resident_order
from storage.errors import InputError

if TYPE_CHECKING:
    from storage.bank.reader import Bank

THREADS = 2  # that read ahead


class BatchReader:
    """Epochs of shuffled batches for one rank: `for batch in BatchReader(bank, 256, seed).epoch(0)`.

    The order follows from (seed, epoch, rank) and the other arguments; `epoch(e, start=k)` continues at batch k as if
    the batches before had been given. In an epoch ranks have disjoint pairs and together all of them, once each; but
    where `world` does not divide them, at most world - 1 are used twice, so that all ranks have equally many.

    A bank of at most `buffer_bytes` is held in memory (`resident`) and shuffled as a whole. Of a larger one, chunks of
    about a MiB come in random order from all over the bank; half of `buffer_bytes` of them are shuffled among each
    other, while a thread reads the next into the other half.

    Raises InputError for a batch, rank or buffer that cannot be.
    """

    def __init__(
        self, bank: Bank, batch: int, seed: int, rank: int = 0, world: int = 1, buffer_bytes: int = 2**30
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            values = f"batch {batch}, rank {rank}, world {world}"
            raise InputError("batch must be >= 1 and rank must be in [0, world)", values, "Correct the arguments.")
        self.bank, self.batch, self.seed = bank, batch, seed
        self._share = Share(bank.facts.pairs, rank, world)
        row_bytes = sum(bank.row_bytes.values())
        self.resident = bank.facts.pairs * row_bytes <= buffer_bytes
        # Two windows: one is used while the next is read.
        self._chunks = buffer_bytes // (2 * bank.chunk * row_bytes)
        if not self.resident and not self._chunks:
            rule = f"buffer_bytes must hold two chunks of this bank, >= {2 * bank.chunk * row_bytes}"
            raise InputError(rule, buffer_bytes, "Increase buffer_bytes.")
        self._limit = buffer_bytes + 2 * BLOCK_BYTES  # the caller may still hold the last batch of the window before
        self._spare: list[Blocks] = []  # reused in the next epoch

    def __len__(self) -> int:
        """Batches of an epoch, the same number for each rank."""
        return -(-self._share.size // self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Arrays]:
        """The batches of an epoch from number `start` on: flat indices "index" (B,) and the bank's arrays (B, ...).

        The last one may be shorter. Batches before `start` are not read. Raises DamageError for damaged
        bytes.
        """
        if start >= len(self):
            return
        position = start * self.batch
        parts: list[Arrays] = []  # of a batch that a window ended in
        for part in self._from_memory(epoch, position) if self.resident else self._from_disk(epoch, position):
            parts.append(part)
            if sum(len(part["index"]) for part in parts) == self.batch:
                yield _joined(parts)
                parts = []
        if parts:
            yield _joined(parts)

    def indices(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The flat indices (B,) of the batches that `epoch` gives, without reading."""
        if self.resident:
            every = resident_order(self._share, self.seed, epoch)
        else:
            plan = self._plan(epoch)
            every = np.concatenate([window.index[window.order] for window in map(plan.__getitem__, range(len(plan)))])
        for first in range(start * self.batch, len(every), self.batch):
            yield every[first : first + self.batch]

    @cached_property
    def whole(self) -> Arrays:
        """All of the bank by flat index: arrays (M, ...)."""
        return {name: rows.reshape(-1, *rows.shape[2:]) for name, rows in self.bank.load().items()}

    def _from_memory(self, epoch: int, position: int) -> Iterator[Arrays]:
        order = resident_order(self._share, self.seed, epoch)
        for first in range(position, len(order), self.batch):
            chosen = order[first : first + self.batch]
            yield {"index": chosen, **{name: rows.take(chosen, 0) for name, rows in self.whole.items()}}

    def _from_disk(self, epoch: int, position: int) -> Iterator[Arrays]:
        """Parts of batches, which end where batches and windows end."""
        plan = self._plan(epoch)
        begin, first = plan.find(position)
        blocks = self._spare.pop() if self._spare else Blocks(self._limit)
        try:
            with ThreadPoolExecutor(THREADS, "bank") as pool:
                ahead = Loading(self.bank, plan[begin], first, self.batch, self.batch).begin(blocks, pool, THREADS)
                for number in range(begin + 1, len(plan) + 1):
                    held = ahead
                    if number < len(plan):
                        ahead = Loading(self.bank, plan[number], 0, held.missing, self.batch)
                        ahead.begin(blocks, pool, THREADS)
                    yield from held
        finally:
            self._spare.append(blocks)

    def _plan(self, epoch: int) -> Windows:
        return Windows(self._share, self.bank.chunk, self._chunks, self.seed, epoch)


def _joined(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
