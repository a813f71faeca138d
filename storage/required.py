"""Values that are there, where the types alone cannot say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def required(value: T | None, what: str) -> T:
    """The value. Raises LookupError where it is None: a fault of the code that no input can cause."""
    if value is None:
        raise LookupError(f"{what} is missing")
    return value


def complete(values: Sequence[T | None]) -> list[T]:
    """The values where none of them is None, else an empty list."""
    present = [value for value in values if value is not None]
    return present if len(present) == len(values) else []
