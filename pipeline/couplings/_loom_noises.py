"""Noises with numbers: what LOOM-CFM hands out is a number of 4 bytes, and here is what each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.couplings._banked import Banked
from pipeline.runtime.noise import noise
from storage.errors import InputError


class Noises(Protocol):
    """`caches` noises for each of `rows` images: number cache * rows + row is the one an image begins with."""

    caches: int
    rows: int
    shape: tuple[int, ...]  # (C, H, W) of one noise

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        """The noises of these numbers, (B,) integers, as (B, C, H, W) float32 on `device`."""


@dataclass(frozen=True)
class SeededNoises:
    """N(0, I), never stored: each noise is made again from its number whenever it is asked for.

    Number i is row i of `pipeline.runtime.noise.noise`, so it has the same bits on any device and in a batch of any
    size. That takes time (see `Loom`); where memory allows, `in_memory` gives the same couplings.

    Args:
        seed: of `pipeline.runtime.noise.noise`.
        rows: images of the data set; where it has flipped copies, those are rows of their own.
        shape: (C, H, W).
        caches: noises for each image.

    Raises:
        InputError: no rows, no caches, or more noises than 4 bytes can number.
    """

    seed: int
    rows: int
    shape: tuple[int, ...]
    caches: int = 1

    def __post_init__(self) -> None:
        _check_count(self.caches, self.rows)

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        return noise(self.seed, identities, 0, self.shape, device=device)

    def in_memory(self) -> BankNoises:
        """The same noises, all made now: 4 * caches * rows * C * H * W bytes."""
        every = self.take(torch.arange(self.caches * self.rows), torch.device("cpu"))
        return BankNoises(every.view(self.caches, self.rows, *self.shape))


class BankNoises:
    """The noises of a bank, such as a teacher's: LOOM-CFM then begins with the teacher's coupling and refines it.

    Args:
        z: (draws, rows, C, H, W) as `Banked` takes it; each draw is a cache.

    Raises:
        InputError: as `Banked`, or more noises than 4 bytes can number.
    """

    def __init__(self, z: Tensor | np.ndarray) -> None:
        self.z = Banked(z).z  # for its checks
        self.caches, self.rows, *shape = z.shape
        self.shape = tuple(shape)
        _check_count(self.caches, self.rows)

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        draw, row = identities.long() // self.rows, identities.long() % self.rows
        if isinstance(self.z, np.ndarray):
            z = torch.from_numpy(self.z[draw.numpy(), row.numpy()])
        else:
            z = self.z[draw.to(self.z.device), row.to(self.z.device)]
        return z.to(device, torch.float32)


def _check_count(caches: int, rows: int) -> None:
    if caches < 1 or rows < 1 or caches * rows >= 1 << 31:
        raise InputError(
            "caches x rows noises are numbered with 31 bits, and there is at least one",
            (caches, rows),
            "Give every image at least one noise; use fewer caches.",
        )
