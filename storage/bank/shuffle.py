"""The order of an epoch, without reading: shards shuffled, shared out to ranks, cut into windows, each shuffled."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from storage.bank.facts import BankFacts
from storage.permutation import permutation


class Window(NamedTuple):
    """What is in memory at once: `pieces` (shard, start, stop) in flat indices, read one after another.

    `index` (n,) is the flat index of each row so read, and `order` (n,) the order in which the rows are used.
    """

    pieces: list[tuple[int, int, int]]
    index: np.ndarray
    order: np.ndarray


def windows(facts: BankFacts, seed: int, epoch: int, rank: int, per_rank: int, size: int) -> Callable[[int], Window]:
    """A function from the number of a window of `size` rows to the window, for one rank that uses `per_rank` pairs.

    The shards in random order make one line of all pairs, of which rank r owns per_rank places from r * per_rank on.
    """
    line = [facts.shards[i] for i in permutation(len(facts.shards), "shards", seed, epoch)]
    ends = np.cumsum([s.stop - s.start for s in line])  # place at which each shard of the line ends

    def window(number: int) -> Window:
        first = rank * per_rank + number * size
        last = min(first + size, (rank + 1) * per_rank)
        pieces = []
        for shard, end in zip(line, ends, strict=True):
            begin = end - (shard.stop - shard.start)
            low, high = max(first, begin), min(last, end)
            if low < high:
                pieces.append((shard.index, int(shard.start + low - begin), int(shard.start + high - begin)))
        index = np.concatenate([np.arange(start, stop) for _, start, stop in pieces])
        return Window(pieces, index, permutation(last - first, "rows", seed, epoch, rank, number))

    return window
