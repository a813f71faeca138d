"""One file of a bank: written a chunk at a time, and read a run of rows at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from storage.bank.layout import Layout


def write(
    path: Path, layout: Layout, rows: np.ndarray, ready: Callable[[np.ndarray], np.ndarray], pool: ThreadPoolExecutor
) -> tuple[int, str]:
    """Write a file of `rows` (n, ...), not yet forced to the disk. Gives its size and its digest (see `digest_of`).

    `ready` turns a chunk's rows into contiguous ones of the array's type. While one chunk is written, the next are made
    ready and encoded in `pool`.
    """

    def chunk(start: int) -> tuple[Any, bytes]:
        return layout.encode(ready(rows[start : start + layout.chunk]))

    sizes, checksums = [], []
    with open(path, "wb") as stream:
        for data, checksum in pool.map(chunk, range(0, len(rows), layout.chunk)):
            stream.write(data)
            stream.write(checksum)
            sizes.append(len(data) + len(checksum))
            checksums.append(checksum)
        stream.write(layout.index(sizes))
        return stream.tell(), digest_of(checksums)


def digest_of(checksums: Iterable[bytes]) -> str:
    """SHA-256 of the CRC-32C of a file's chunks, in their order.

    The CRCs hold for the bytes, so that a file with this digest is the one that was written and no other. To hash the
    bytes would take as long as to write them.
    """
    return hashlib.sha256(b"".join(checksums)).hexdigest()


class ShardFile:
    """A file of `size` bytes, read a run of rows at a time.

    It remembers where its chunks lie, and which of them it has checked: a chunk that held is not checked again until
    the file itself changes, for checking takes nearly as long as reading. All methods raise ValueError for a file that
    is missing, of another size, or not as its checksums say.
    """

    def __init__(self, path: Path, layout: Layout, size: int) -> None:
        self.path, self._name, self._layout, self._size = path, str(path), layout, size
        self._version: tuple[int, ...] = ()
        self._chunks: list[tuple[int, int]] = []  # offsets and lengths
        self._sound: set[int] = set()  # chunks that were checked

    def read(self, start: int, out: np.ndarray) -> None:
        """Rows from `start` of the file on into `out` (n, ...), which is contiguous."""
        stop, step = start + len(out), self._layout.chunk
        with self._opened() as file:
            for number in range(start // step, -(-stop // step)):
                first = number * step
                low, high = max(first, start), min(first + step, stop)
                target = out[low - start : high - start]
                if high - low == step:
                    self._read_chunk(file, number, target)
                else:
                    whole = np.empty((step, *self._layout.row), self._layout.dtype)
                    self._read_chunk(file, number, whole)
                    target[:] = whole[low - first : high - first]

    def digest(self) -> str:
        """Read the file, check all of it, and give the digest of its checksums."""
        rows = np.empty((self._layout.chunk, *self._layout.row), self._layout.dtype)
        with self._opened() as file:
            self._sound.clear()
            return digest_of([self._read_chunk(file, number, rows) for number in range(len(self._chunks))])

    def _read_chunk(self, file: int, number: int, out: np.ndarray) -> bytes:
        checksum = self._layout.read_chunk(file, *self._chunks[number], out, check=number not in self._sound)
        self._sound.add(number)
        return checksum

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            file = os.open(self._name, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError("is missing") from None
        try:
            found = os.fstat(file)
            if found.st_size != self._size:
                raise ValueError(f"has {found.st_size} bytes instead of {self._size}")
            version = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
            if version != self._version:
                self._sound = set()
                self._chunks = self._layout.read_index(file, self._size)
                self._version = version
            yield file
        finally:
            os.close(file)
