"""Reading a bank: whole, by index, or in shuffled batches; never a row that is not as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storage.arrays import reading
from storage.atomic import sha256_file
from storage.bank.facts import COMPLETE, FACTS, INDEX, REMEDY, BankFacts, Identity, Index, Shard, read_json
from storage.bank.shuffle import Window, windows
from storage.errors import DamageError, InputError


class Problem(NamedTuple):
    """What `Bank.verify` found: `file` of shard number `shard` (None for a file that belongs to no shard)."""

    shard: int | None
    file: str
    found: str


class Bank:
    """A complete bank, opened by `Bank.open`. `facts` describe it; `arrays` names what it holds of z, x and labels."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path = path
        self.facts: BankFacts = index.facts
        self.arrays = index.arrays
        self._index = index

    @classmethod
    def open(cls, path: Path) -> Bank:
        """Open the bank `path`; sizes of all its files are checked, their bytes when they are read.

        Raises InputError if there is none or it is unfinished, DamageError naming the first shard that is not whole.
        """
        path = Path(path)
        if not (path / INDEX).is_file():
            if not (path / FACTS).is_file():
                raise InputError("a bank is a directory with a bank.json", str(path), "Run the stage that writes it.")
            shards = read_json(path / FACTS, Identity).facts.shards
            found = f"{len(list((path / COMPLETE).glob('*.json')))} of {len(shards)} shards in {path}"
            raise InputError(
                "a bank is read once all its shards are written", found, "Run the same command to finish it."
            )
        bank = cls(path, read_json(path / INDEX, Index))
        problems = bank._metadata_problems() + [p for s in bank.facts.shards for p in bank._problems(s, deep=False)]
        if problems:
            shard, file, what = problems[0]
            where = file if shard is None else f"shard {shard}, {file}"
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DamageError(f"bank {path}, {where}", what + more, REMEDY)
        return bank

    def load(self) -> dict[str, np.ndarray]:
        """All of the bank in memory: z and x (draws, rows, C, H, W) in the bank's type, labels (draws, rows) int64."""
        facts, loaded = self.facts, {}
        for name in self.arrays:
            values = np.empty(facts.array_shape(name, facts.pairs), facts.array_dtype(name))
            for shard in facts.shards:
                values[shard.start : shard.stop] = self._read(name, shard, shard.start, shard.stop)
            loaded[name] = values.reshape(facts.draws, facts.rows, *values.shape[1:])
        return loaded

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The pairs of flat `indices` (N,), in their order: arrays (N, ...). Reads whole shards, so for a few."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.facts.pairs):
            raise IndexError(f"flat indices are 0 to {self.facts.pairs - 1}, got {indices.min()} to {indices.max()}")
        gathered = {
            n: np.empty(self.facts.array_shape(n, len(indices)), self.facts.array_dtype(n)) for n in self.arrays
        }
        shards = self.facts.shards
        for number in np.unique(indices // self.facts.shard):
            here = np.flatnonzero(indices // self.facts.shard == number)
            shard = shards[number]
            for name, values in gathered.items():
                values[here] = self._read(name, shard, shard.start, shard.stop)[indices[here] - shard.start]
        return gathered

    def batches(self, batch: int, world: int = 1) -> int:
        """Batches in an epoch of `shuffled`, the same number for each rank."""
        return self.facts.pairs // world // batch

    def shuffled(
        self,
        seed: int,
        epoch: int,
        batch: int,
        start_batch: int = 0,
        rank: int = 0,
        world: int = 1,
        buffer_shards: int = 2,
    ) -> Iterator[dict[str, np.ndarray]]:
        """One epoch in random order: flat indices "index" (B,) and the arrays (B, ...) of each batch.

        The order follows from (seed, epoch, rank, world, buffer_shards); `start_batch` skips ahead without reading.
        Ranks have disjoint pairs and equally many batches, so fewer than `batch` pairs per rank, and fewer than `world`
        besides, are left out of an epoch. Shards come in random order; as many rows as `buffer_shards` of them hold are
        in memory, and are shuffled.
        """
        per_rank = self.facts.pairs // world
        size = buffer_shards * self.facts.shard  # rows of a window
        position, end = start_batch * batch, per_rank // batch * batch
        plan = windows(self.facts, seed, epoch, rank, per_rank, size)
        held: tuple[int, Window, dict[str, np.ndarray]] | None = None
        while position < end:
            parts = []
            until = position + batch
            while position < until:
                number, offset = divmod(position, size)
                if held is None or held[0] != number:
                    held = None  # free the old window before the next is read
                    held = (number, plan(number), self._read_window(plan(number)))
                _, window, rows = held
                chosen = window.order[offset : offset + until - position]
                parts.append({"index": window.index[chosen], **{n: values[chosen] for n, values in rows.items()}})
                position += len(chosen)
            yield parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    def verify(self) -> list[Problem]:
        """Hash every file: all that is missing or not as written, in order of shards. Empty when the bank is sound."""
        return self._metadata_problems() + [p for s in self.facts.shards for p in self._problems(s, deep=True)]

    @cached_property
    def _zarr(self) -> dict:
        import zarr

        with reading(f"bank {self.path}", REMEDY):
            return {name: zarr.open_array(str(self.path / name), mode="r") for name in self.arrays}

    def _read(self, name: str, shard: Shard, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1 of an array, all within `shard`. Zarr checks the CRC of each chunk that it decodes."""
        problem = self._problem(shard, name, deep=False)  # a missing or empty file would read as fill_value
        if problem:
            raise DamageError(f"bank {self.path}, shard {shard.index}, {problem.file}", problem.found, REMEDY)
        with reading(f"bank {self.path}, shard {shard.index} of {name}", REMEDY):
            return self._zarr[name][start:stop]

    def _read_window(self, window: Window) -> dict[str, np.ndarray]:
        shards = self.facts.shards
        return {
            name: np.concatenate([self._read(name, shards[s], start, stop) for s, start, stop in window.pieces])
            for name in self.arrays
        }

    def _problems(self, shard: Shard, deep: bool) -> list[Problem]:
        return [p for name in self.arrays if (p := self._problem(shard, name, deep))]

    def _problem(self, shard: Shard, name: str, deep: bool) -> Problem | None:
        file, fact = self.facts.file(self.path, name, shard.index), self._index.shards[shard.index].files[name]
        found = None
        if not file.is_file():
            found = "is missing"
        elif (size := file.stat().st_size) != fact.size:
            found = f"has {size} bytes instead of {fact.size}"
        elif deep and sha256_file(file) != fact.sha256:
            found = "its bytes are not those written (SHA-256)"
        return Problem(shard.index, file.relative_to(self.path).as_posix(), found) if found else None

    def _metadata_problems(self) -> list[Problem]:
        problems = []
        for file, digest in self._index.metadata.items():
            if not (self.path / file).is_file():
                problems.append(Problem(None, file, "is missing"))
            elif sha256_file(self.path / file) != digest:
                problems.append(Problem(None, file, "its bytes are not those written (SHA-256)"))
        return problems
