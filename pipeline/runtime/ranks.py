"""The processes (ranks) that share a stage: this one's number, and the values that they exchange.

A stage is written once, for any number of ranks. Alone (rank 0 of 1) every function here is the identity, and
torch.distributed is never touched. Values are exchanged on the CPU, over gloo; gradients go through DDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """How many processes share the stage."""
    return dist.get_world_size() if _together() else 1


def first() -> bool:
    """Whether this is the rank that writes the files of all: checkpoints, pictures, the result."""
    return rank() == 0


def mine(items: Sequence[T]) -> Sequence[T]:
    """This rank's part of a sequence: every `world()`-th item. The parts are disjoint and cover it."""
    return items[rank() :: world()]


def barrier() -> None:
    """Wait until every rank is here."""
    total([0.0])


def total(values: Sequence[float]) -> list[float]:
    """The sums of each value over the ranks, in float64, the same on every rank."""
    if not _together():
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def gathered(value: T) -> list[T]:
    """Every rank's value, by rank, on every rank. Values are pickled: tensors on the CPU, arrays, plain data."""
    if not _together():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def agreed(value: T) -> T:
    """The first rank's value, on every rank."""
    if not _together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
