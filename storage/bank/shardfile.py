"""One file of a bank: written a chunk at a time, and read a run of rows at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from storage.bank.layout import Layout, as_bytes

FLUSHED = 2**22  # bytes after which writing to disk begins


def write(
    path: Path, layout: Layout, rows: np.ndarray, ready: Callable[[np.ndarray], np.ndarray], pool: Executor | None
) -> tuple[int, str]:
    """Write a file of `rows` (n, ...), not yet forced to the disk. Gives its size and its digest (see `digest_of`).

    `ready` turns a chunk's rows into contiguous ones of the array's type. Where that or the encoding is work, give a
    `pool` of threads for it.
    """

    def chunk(start: int) -> tuple[Any, bytes]:
        return layout.encode(ready(rows[start : start + layout.chunk]))

    encoded = (pool.map if pool else map)(chunk, range(0, len(rows), layout.chunk))
    sizes, checksums, begun = [], [], 0
    with open(path, "wb") as stream:
        for data, checksum in encoded:
            stream.write(data)
            stream.write(checksum)
            sizes.append(len(data) + len(checksum))
            checksums.append(checksum)
            if stream.tell() - begun >= FLUSHED:
                _begin_writeback(stream, begun)
                begun = stream.tell()
        stream.write(layout.index(sizes))
        return stream.tell(), digest_of(checksums)


def _begin_writeback(stream: BinaryIO, start: int) -> None:
    """Start writing back the bytes from `start` on, while the next are computed; the final fsync then has less to do.

    Linux starts to write pages marked as not needed, and drops a page from memory only after it is written.
    """
    stream.flush()
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(stream.fileno(), start, stream.tell() - start, os.POSIX_FADV_DONTNEED)


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
        self._verified: set[int] = set()  # chunks that were checked

    def read(self, start: int, out: np.ndarray) -> None:
        """Rows from `start` of the file on into `out` (n, ...), which is contiguous."""
        with self._opened() as file:
            for number, first, low, high in self._spans(start, start + len(out)):
                target = out[low - start : high - start]
                if len(target) == self._layout.chunk:
                    self._read_chunk(file, number, target)
                else:
                    whole = self._scratch()
                    self._read_chunk(file, number, whole)
                    target[:] = whole[low - first : high - first]

    def scatter(self, start: int, rows: list[memoryview]) -> None:
        """The bytes of rows from `start` of the file on, each to its own place. For layouts that scatter."""
        compressed, size = self._layout.compressor is not None, len(rows[0])
        with self._opened() as file:
            for number, first, low, high in self._spans(start, start + len(rows)):
                targets = rows[low - start : high - start]
                if compressed or number not in self._verified:
                    whole = self._scratch()
                    self._read_chunk(file, number, whole)
                if compressed:
                    source = memoryview(as_bytes(whole))  # type: ignore[arg-type]  # arrays are buffers
                    for row, target in enumerate(targets, low - first):
                        target[:] = source[row * size : (row + 1) * size]
                else:  # once more from the system's cache, which is faster than to copy here
                    self._layout.read_rows(file, self._chunks[number][0], low - first, targets)

    def digest(self) -> str:
        """Read the file, check all of it, and give the digest of its checksums."""
        rows = self._scratch()
        with self._opened() as file:
            self._verified.clear()
            return digest_of([self._read_chunk(file, number, rows) for number in range(len(self._chunks))])

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Of each chunk with rows from start to stop - 1: its number, its first row, and the rows low to high - 1."""
        step = self._layout.chunk
        for number in range(start // step, -(-stop // step)):
            yield number, number * step, max(number * step, start), min(number * step + step, stop)

    def _scratch(self) -> np.ndarray:
        """Room for a chunk."""
        return np.empty((self._layout.chunk, *self._layout.row), self._layout.dtype)

    def _read_chunk(self, file: int, number: int, out: np.ndarray) -> bytes:
        checksum = self._layout.read_chunk(file, *self._chunks[number], out, check=number not in self._verified)
        self._verified.add(number)
        return checksum

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            file = os.open(self._name, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError("is missing") from None
        try:
            status = os.fstat(file)
            if status.st_size != self._size:
                raise ValueError(f"has {status.st_size} bytes instead of {self._size}")
            version = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
            if version != self._version:
                self._verified = set()
                self._chunks = self._layout.read_index(file, self._size)
                self._version = version
            yield file
        finally:
            os.close(file)
