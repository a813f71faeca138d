"""An array of a bank that stays on the disk: indexed like NumPy's, each row is read when it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np

from storage.bank.layout import as_bytes
from storage.bank.reader import Bank

READERS = 8  # threads that read the rows of one request: a disk answers several at once


class Streamed:
    """The array `name` of a bank, (draws, rows, ...) as `Bank.load` gives it, without the memory.

    A request gives the same values as from memory, so whether a bank is streamed changes no training. A chunk is read
    whole and checked when its first row is asked for; after that a row costs its own bytes. Of a compressed bank each
    request decodes whole chunks.
    """

    def __init__(self, bank: Bank, name: str) -> None:
        self._bank, self._name = bank, name
        self._lead: tuple[int, ...] = (bank.facts.draws, bank.facts.rows)
        self._first = 0
        self._row = bank.facts.array_shape(name, 1)[1:]
        self.dtype = np.dtype(bank.facts.array_dtype(name))
        self._pool = ThreadPoolExecutor(READERS, "bank")

    @property
    def shape(self) -> tuple[Any, ...]:
        return (*self._lead, *self._row)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self._lead[0]

    def _draw(self, number: int) -> Streamed:
        """The rows of one draw, (rows, ...)."""
        if len(self._lead) != 2 or not 0 <= number < self._lead[0]:
            raise IndexError(f"draw {number} of an array of the shape {self.shape}")
        rows = Streamed(self._bank, self._name)
        rows._lead, rows._first, rows._pool = self._lead[1:], self._first + number * self._lead[1], self._pool
        return rows

    @overload
    def __getitem__(self, index: int) -> Streamed: ...
    @overload
    def __getitem__(self, index: np.ndarray | tuple[np.ndarray, ...] | slice) -> np.ndarray: ...

    def __getitem__(self, index: int | np.ndarray | tuple[np.ndarray, ...] | slice) -> Streamed | np.ndarray:
        """Rows at integer arrays (n,), one for each of the leading dimensions, or at a slice of the only one; at an
        integer one draw, which stays on the disk.

        Raises ValueError or IndexError for a place outside, DamageError for damaged bytes.
        """
        if isinstance(index, int):
            return self._draw(index)
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        places = np.ravel_multi_index(index if isinstance(index, tuple) else (index,), self._lead)
        return self._read(self._first + places)

    def _read(self, flat: np.ndarray) -> np.ndarray:
        """The rows of flat indices (n,), in their order."""
        rows = np.empty((len(flat), *self._row), self.dtype)
        order = np.argsort(flat, kind="stable")
        if self._bank.compressed(self._name):
            cuts = np.flatnonzero(np.diff(flat[order] // self._bank.chunk)) + 1
            parts = np.split(order, cuts)  # places in `flat` whose rows lie in one chunk, which is decoded once
            read = self._read_span
        else:
            parts, read = np.array_split(order, READERS), self._read_each
        list(self._pool.map(lambda places: read(flat, places, rows), [places for places in parts if len(places)]))
        return rows

    def _read_each(self, flat: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
        for place in places.tolist():
            row = memoryview(as_bytes(rows[place]))  # type: ignore[arg-type]  # arrays are buffers
            self._bank.scatter(self._name, int(flat[place]), [row])

    def _read_span(self, flat: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
        """Rows of one chunk, in the order of their flat indices."""
        low, high = int(flat[places[0]]), int(flat[places[-1]]) + 1
        span = np.empty((high - low, *self._row), self.dtype)
        self._bank.read(self._name, low, span)
        rows[places] = span[flat[places] - low]
