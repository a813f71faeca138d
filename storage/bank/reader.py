"""Reading a bank: whole, by index, or in shuffled batches; never a row that is not as it was written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from storage.atomic import sha256_file
from storage.bank.facts import COMPLETE, FACTS, INDEX, REMEDY, BankFacts, Identity, Index, Shard, read_json
from storage.bank.layout import Layout, layouts
from storage.bank.shardfile import ShardFile
from storage.errors import DamageError, MissingError, reading

THREADS = 2  # that read a whole bank: decoding and fresh memory cost more than the copying


class Problem(NamedTuple):
    """A flaw of a bank: `file` of shard number `shard` (None for a file that belongs to no shard)."""

    shard: int | None
    file: str
    flaw: str


class Bank:
    """A complete bank, opened by `Bank.open`. `facts` describe it; `arrays` names its arrays, of z, x and labels."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path = path
        self.facts: BankFacts = index.facts
        self.arrays = index.arrays
        self._index = index
        self._files: dict[tuple[str, int], ShardFile] = {}  # by array and shard

    @classmethod
    def open(cls, path: Path) -> Bank:
        """Open the bank `path`; sizes of all its files are checked, their bytes when they are read.

        Raises MissingError if there is none or it is unfinished, DamageError naming the first shard that is not whole.
        """
        path = Path(path)
        if not (path / INDEX).is_file():
            if not (path / FACTS).is_file():
                raise MissingError(
                    "A bank must be a directory with a bank.json", str(path), "Run the stage that writes it."
                )
            shards = read_json(path / FACTS, Identity).facts.shards
            complete = f"{len(list((path / COMPLETE).glob('*.json')))} of {len(shards)} shards in {path}"
            raise MissingError("A bank must have all its shards", complete, "Run the stage that writes it to its end.")
        bank = cls(path, read_json(path / INDEX, Index))
        problems = [*bank._metadata_problems(), *bank._shard_problems()]
        if problems:
            shard, file, what = problems[0]
            where = file if shard is None else f"shard {shard}, {file}"
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DamageError(f"bank {path}, {where}", what + more, REMEDY)
        return bank

    @property
    def row_bytes(self) -> dict[str, int]:
        """By array, the bytes of one pair in memory."""
        return {name: rows.nbytes for name, rows in self.empty(1).items()}

    @property
    def chunk(self) -> int:
        """Rows that are read and checked at once."""
        return self._layouts["z"].chunk

    def empty(self, pairs: int) -> dict[str, np.ndarray]:
        """Arrays for `pairs` pairs, (pairs, ...) of the bank's types, not filled."""
        facts = self.facts
        return {name: np.empty(facts.array_shape(name, pairs), facts.array_dtype(name)) for name in self.arrays}

    def load(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays of these `names`, all unless given, in memory: z and x (draws, rows, C, H, W) in the bank's type,
        labels (draws, rows) int64."""
        names = self.arrays if names is None else names
        loaded = {
            name: np.empty(self.facts.array_shape(name, self.facts.pairs), self.facts.array_dtype(name))
            for name in names
        }

        def fill(part: tuple[str, Shard]) -> None:
            name, (_, start, stop) = part
            self.read(name, start, loaded[name][start:stop])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, itertools.product(names, self.facts.shards)))
        return {name: rows.reshape(self.facts.draws, self.facts.rows, *rows.shape[1:]) for name, rows in loaded.items()}

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The pairs of flat `indices` (N,), in their order: arrays (N, ...). Reads whole chunks, so for a few."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.facts.pairs):
            raise IndexError(f"flat indices are 0 to {self.facts.pairs - 1}, got {indices.min()} to {indices.max()}")
        gathered = self.empty(len(indices))
        for number in np.unique(indices // self.chunk):
            here = np.flatnonzero(indices // self.chunk == number)
            start = int(number) * self.chunk
            for name, rows in self.empty(min(self.chunk, self.facts.pairs - start)).items():
                self.read(name, start, rows)
                gathered[name][here] = rows[indices[here] - start]
        return gathered

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        """Read the rows of array `name` from flat index `start` on, all within one shard, into `out` (n, ...).

        A chunk's CRC is checked when it is first read, and again once its file has changed. Raises DamageError.
        """
        number, first = divmod(start, self.facts.shard)
        file = self._file(name, number)
        with reading(f"bank {self.path}, shard {number}, {name}/{file.path.name}", REMEDY):
            file.read(first, out)

    def scatter(self, name: str, start: int, rows: list[memoryview]) -> None:
        """As `read`, with a separate destination for each row. For arrays that scatter."""
        number, first = divmod(start, self.facts.shard)
        file = self._file(name, number)
        with reading(f"bank {self.path}, shard {number}, {name}/{file.path.name}", REMEDY):
            file.scatter(first, rows)

    def scatters(self, name: str) -> bool:
        """Whether rows of an array are large enough to be read each to its own place, which saves a copy."""
        return self._layouts[name].scatters

    def compressed(self, name: str) -> bool:
        """Whether an array's chunks are compressed, so that no row of one can be read by itself."""
        return self._layouts[name].compressor is not None

    def _file(self, name: str, shard: int) -> ShardFile:
        file = self._files.get((name, shard))
        if file is None:
            path = self.facts.file(self.path, name, shard)
            file = ShardFile(path, self._layouts[name], self._index.shards[shard].files[name].size)
            self._files[name, shard] = file
        return file

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return layouts(self.path, self.arrays)

    def _shard_problems(self) -> Iterator[Problem]:
        """Files of shards that are missing or of another size; `storage.bank.reopen.flaws` reads their bytes too."""
        for shard, name in itertools.product(self.facts.shards, self.arrays):
            file = self.facts.file(self.path, name, shard.index)
            recorded = self._index.shards[shard.index].files[name].size
            size = file.stat().st_size if file.is_file() else None
            if size != recorded:
                flaw = "is missing" if size is None else f"has {size} bytes instead of {recorded}"
                yield Problem(shard.index, file.relative_to(self.path).as_posix(), flaw)

    def _metadata_problems(self) -> list[Problem]:
        problems = []
        for file, digest in self._index.metadata.items():
            if not (self.path / file).is_file():
                problems.append(Problem(None, file, "is missing"))
            elif sha256_file(self.path / file) != digest:
                problems.append(Problem(None, file, "its bytes are not those written"))
        return problems
