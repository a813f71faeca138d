"""The order of an epoch, without reading: chunks shuffled, shared out to ranks, cut into windows, each shuffled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Share:
    """What rank `rank` of `world` uses of each epoch of `pairs` pairs: as many as every other rank.

    An epoch is a line of all pairs in random order, of which rank r has the ceil(pairs / world) places from
    r * ceil(pairs / world) on. Beyond the last pair the order starts again: an epoch uses at most world - 1 pairs twice
    and leaves none out.
    """

    pairs: int
    rank: int
    world: int

    @property
    def size(self) -> int:
        return -(-self.pairs // self.world)

    def segments(self) -> list[tuple[int, int]]:
        """Runs (start, stop) of places of the line, in order."""
        start = self.rank * self.size % self.pairs
        stop = start + self.size
        return [(start, stop)] if stop <= self.pairs else [(start, self.pairs), (0, stop - self.pairs)]


class Window(NamedTuple):
    """The rows in memory at a time: runs (start, stop) of flat indices, each within a chunk, read one after another.

    `order` (n,) is the order in which the rows so read are used.
    """

    runs: list[tuple[int, int]]
    order: np.ndarray

    @property
    def index(self) -> np.ndarray:  # type: ignore[override]  # tuple.index is not used
        """The flat index of each row, in the order of reading."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.runs])


def resident_order(share: Share, seed: int, epoch: int) -> np.ndarray:
    """Flat indices (share.size,) in their order of use, where any pair is at hand."""
    line = permutation(share.pairs, "pairs", seed, epoch)
    return np.concatenate([line[start:stop] for start, stop in share.segments()])


class Windows:
    """A rank's share of an epoch where `chunks` chunks of `chunk` rows are held at a time.

    The line of the epoch is all chunks in random order: what lies together in the data set, such as a class, is thus
    spread over the epoch, and a window mixes what comes from as many places as it has chunks.
    """

    def __init__(self, share: Share, chunk: int, chunks: int, seed: int, epoch: int) -> None:
        self._share, self._chunks, self._key = share, chunks, (seed, epoch, share.rank)
        begin = permutation(-(-share.pairs // chunk), "chunks", seed, epoch) * chunk  # first flat index of each chunk
        ends = np.cumsum(np.minimum(chunk, share.pairs - begin))  # places of the line at which they end ...
        places = np.concatenate([[0], ends[:-1]])  # ... and begin
        runs = []
        for low, high in share.segments():
            some = slice(np.searchsorted(ends, low, "right"), np.searchsorted(places, high, "left"))
            bounds = np.stack([places[some], ends[some]], axis=1).clip(low, high)
            runs.append(bounds + (begin - places)[some, None])
        self._runs = np.concatenate(runs)  # (runs, 2)
        self._ends = np.cumsum(self._runs[:, 1] - self._runs[:, 0])

    def __len__(self) -> int:
        return -(-len(self._runs) // self._chunks)

    def __getitem__(self, number: int) -> Window:
        runs = self._runs[number * self._chunks : (number + 1) * self._chunks]
        size = int((runs[:, 1] - runs[:, 0]).sum())
        return Window([tuple(run) for run in runs.tolist()], permutation(size, "rows", *self._key, number))

    def find(self, position: int) -> tuple[int, int]:
        """The window that holds the rank's row number `position`, and how many of its rows come before."""
        number = int(np.searchsorted(self._ends, position, "right")) // self._chunks
        before = self._ends[number * self._chunks - 1] if number else 0
        return number, position - int(before)


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of range(n), int64 (n,), determined by `key`.

    RandomState's stream is frozen by NumPy's policy, that of Generator is not. The key is hashed, for SeedSequence
    takes [1] and [1, 0] for the same seed.
    """
    entropy = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "big")
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy))).permutation(n).astype(np.int64)
