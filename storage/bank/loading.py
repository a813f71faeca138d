"""One window of a bank on its way into memory: each row is read to its place in a batch, so that nothing is copied."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy as np

from storage.bank.shuffle import Window

if TYPE_CHECKING:
    from storage.bank.reader import Bank

Arrays = dict[str, np.ndarray]
BLOCK_BYTES = 2**25  # allocated at once, for several batches: large pages come at a fifth of the cost of small ones


class Loading:
    """The rows of `window` in their order of use from number `first` on, in parts that end where batches do.

    The first part has `needed` rows, which complete a batch; the others have `batch`, the last one the remainder.
    `missing` is the number of rows that the last one lacks of a batch, or `batch` if it lacks none.
    """

    def __init__(self, bank: Bank, window: Window, first: int, needed: int, batch: int) -> None:
        self._bank, self._runs, self._order, self._index = bank, window.runs, window.order, window.index
        count = len(self._order)
        self._bounds = [first, *range(first + needed, count, batch), count]
        self.missing = (self._bounds[-2] + (needed if len(self._bounds) == 2 else batch)) - count or batch
        self._parts: dict[str, list[np.ndarray]] = {}  # rows that are read to their places
        self._rows: Arrays = {}  # rows too small for that, in the order of reading
        self._reading: list[Future] = []

    def begin(self, blocks: Blocks, pool: Executor, threads: int) -> Loading:
        """Begin to read, into memory of `blocks`."""
        count = len(self._order)
        used = np.empty(count, dtype=np.int64)  # of each row in the order of reading, when it is used
        used[self._order] = np.arange(count)
        targets = {}
        for name, row in self._bank.empty(1).items():
            if self._bank.scatters(name):
                skipped = Block(self._bounds[0], row.nbytes)
                self._parts[name], places = blocks.parts(self._bounds, row)
                targets[name] = [*skipped.rows, *places]
            else:
                self._rows[name] = np.empty((count, *row.shape[1:]), row.dtype)
        ends = np.cumsum([stop - start for start, stop in self._runs]).tolist()

        def read(part: int) -> None:
            for (start, stop), end in list(zip(self._runs, ends, strict=True))[part::threads]:
                here = slice(end - (stop - start), end)
                for name, rows in targets.items():
                    self._bank.scatter(name, start, [rows[i] for i in used[here].tolist()])
                for name, own in self._rows.items():
                    self._bank.read(name, start, own[here])

        self._reading = [pool.submit(read, part) for part in range(threads)]
        return self

    def __iter__(self) -> Iterator[Arrays]:
        """The parts, once; each is forgotten here as it is given."""
        for reading in self._reading:
            reading.result()
        self._reading = []
        parts_of = {name: self._parts.pop(name)[::-1] for name in list(self._parts)}
        for low, high in itertools.pairwise(self._bounds):
            chosen = self._order[low:high]
            arrays = {name: parts.pop() for name, parts in parts_of.items()}
            arrays |= {name: rows.take(chosen, 0) for name, rows in self._rows.items()}
            yield {"index": self._index[chosen], **{name: arrays[name] for name in self._bank.arrays}}


class Block:
    """Memory for `count` rows of `row_bytes` each."""

    def __init__(self, count: int, row_bytes: int) -> None:
        self.memory = np.empty(count * row_bytes, np.uint8)
        view = memoryview(self.memory)  # type: ignore[arg-type]  # arrays are buffers
        self.rows = [view[start : start + row_bytes] for start in range(0, count * row_bytes, row_bytes)]
        self._references = sys.getrefcount(self.memory)

    @property
    def free(self) -> bool:
        """Whether no caller holds an array that shows a part of the memory, for each of them refers to it."""
        return sys.getrefcount(self.memory) == self._references


class Blocks:
    """Memory for batches, reused once no caller holds an array in it: fresh memory costs as much as reading.

    At most `limit` bytes are retained.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._blocks = limit, list[Block]()

    def take(self, count: int, row_bytes: int) -> Block:
        """A block that no other batch uses."""
        for block in self._blocks:
            if block.free and (len(block.rows), block.memory.nbytes) == (count, count * row_bytes):
                return block
        block = Block(count, row_bytes)
        if sum(retained.memory.nbytes for retained in [*self._blocks, block]) <= self._limit:
            self._blocks.append(block)
        return block

    def parts(self, bounds: list[int], row: np.ndarray) -> tuple[list[np.ndarray], list[memoryview]]:
        """Arrays for the rows between `bounds`, (high - low, ...) like `row` (1, ...), and the memory of each row."""
        parts, rows = list[np.ndarray](), list[memoryview]()
        spans = list(itertools.pairwise(bounds))
        largest = max(high - low for low, high in spans)
        together = min(max(1, BLOCK_BYTES // (largest * row.nbytes)), len(spans))
        for number in range(0, len(spans), together):
            group = spans[number : number + together]
            begin, end = group[0][0], group[-1][1]
            block = self.take(together * largest, row.nbytes)
            values = block.memory.view(row.dtype).reshape(-1, *row.shape[1:])
            parts += [values[low - begin : high - begin] for low, high in group]
            rows += block.rows[: end - begin]
        return parts, rows
