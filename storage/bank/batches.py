"""Shuffled batches of a bank at training speed, from memory where it fits, else window by window."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from storage.bank.shuffle import Share, Window, Windows, resident_order
from storage.errors import InputError

if TYPE_CHECKING:
    from storage.bank.reader import Bank

Arrays = dict[str, np.ndarray]
THREADS = 2  # that read ahead: to read and check takes twice as long as to gather


class _Held(NamedTuple):
    """Rows that are in memory: their flat `index`, and the `order` in which they are used, from number `first` on."""

    index: np.ndarray
    values: Arrays
    order: np.ndarray
    first: int


class BatchReader:
    """Epochs of shuffled batches for one rank; made by `Bank.reader`, which says what the arguments mean.

    `resident` says whether the bank is kept in memory. It is then read whole at the first batch, and shuffled whole.
    """

    def __init__(self, bank: Bank, batch: int, seed: int, rank: int, world: int, buffer_bytes: int) -> None:
        if batch < 1 or not 0 <= rank < world:
            found = f"batch {batch}, rank {rank}, world {world}"
            raise InputError("a batch holds 1 pair or more, and ranks count from 0 to world - 1", found, "Correct it.")
        self.bank, self.batch, self.seed = bank, batch, seed
        self._share = Share(bank.facts.pairs, rank, world)
        row_bytes = sum(bank.row_bytes.values())
        self.resident = bank.facts.pairs * row_bytes <= buffer_bytes
        # Two windows: one is used while the next is read.
        self._chunks = buffer_bytes // (2 * bank.chunk * row_bytes)
        if not self.resident and not self._chunks:
            rule = f"a buffer holds two chunks of this bank, {2 * bank.chunk * row_bytes} bytes"
            raise InputError(rule, buffer_bytes, "Give buffer_bytes more.")
        # Buffers are kept from one epoch to the next: memory that is fresh costs more than the reading.
        self._spare: list[tuple[Arrays, Arrays]] = []

    def __len__(self) -> int:
        """Batches of an epoch, the same number for each rank."""
        return -(-self._share.size // self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Arrays]:
        """The batches of an epoch from number `start` on: flat indices "index" (B,) and the bank's arrays (B, ...).

        The last one may be shorter. What comes before `start` is not read. Raises DamageError for what is not as it
        was written.
        """
        parts: list[Arrays] = []  # of a batch that the last window ended in
        missing = self.batch
        for index, values, order, first in self._held(epoch, start * self.batch):
            while first < len(order):
                chosen = order[first : first + missing]
                first, missing = first + len(chosen), missing - len(chosen)
                parts.append({"index": index[chosen], **{name: rows.take(chosen, 0) for name, rows in values.items()}})
                if not missing:
                    yield _joined(parts)
                    parts, missing = [], self.batch
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

    def _plan(self, epoch: int) -> Windows:
        return Windows(self._share, self.bank.chunk, self._chunks, self.seed, epoch)

    def _held(self, epoch: int, position: int) -> Iterator[_Held]:
        if position >= self._share.size:
            return
        if self.resident:
            index = np.arange(self._share.pairs)
            yield _Held(index, self.whole, resident_order(self._share, self.seed, epoch), position)
            return
        plan = self._plan(epoch)
        begin, first = plan.find(position)
        buffers = self._spare.pop() if self._spare else (self._buffer(), self._buffer())
        try:
            with ThreadPoolExecutor(THREADS, "bank") as pool:
                window, values, reading = self._read(plan[begin], buffers[0], pool)
                for number in range(begin, len(plan)):
                    for part in reading:
                        part.result()
                    held = _Held(window.index, values, window.order, first)
                    buffers, first = buffers[::-1], 0
                    if number + 1 < len(plan):
                        window, values, reading = self._read(plan[number + 1], buffers[0], pool)
                    yield held
        finally:
            self._spare.append(buffers)

    def _buffer(self) -> Arrays:
        return self.bank.empty(self._chunks * self.bank.chunk)

    def _read(self, window: Window, buffer: Arrays, pool: ThreadPoolExecutor) -> tuple[Window, Arrays, list[Future]]:
        """Begin to read a window: its rows are there once the futures have a result."""
        ends = np.cumsum([stop - start for start, stop in window.runs]).tolist()
        places = list(zip(window.runs, ends, strict=True))

        def read(part: int) -> None:
            for (start, stop), end in places[part::THREADS]:
                for name, rows in buffer.items():
                    self.bank.read(name, start, rows[end - (stop - start) : end])

        values = {name: rows[: ends[-1]] for name, rows in buffer.items()}
        return window, values, [pool.submit(read, part) for part in range(THREADS)]


def _joined(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
