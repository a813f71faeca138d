"""Numbered noises: LOOM-CFM assigns numbers of 4 bytes, and these classes give the noise of each number."""

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
    """K = `noises_per_image` noises for each of `rows` images: number k * rows + row is an image's noise k at first."""

    @property
    def noises_per_image(self) -> int: ...

    @property
    def rows(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one noise."""

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        """The noises of these numbers, (B,) integers, as (B, C, H, W) float32 on `device`."""


@dataclass(frozen=True)
class SeededNoises:
    """N(0, I), never stored: each noise is computed from its number at each use.

    Number i is row i of `pipeline.runtime.noise.noise`, so it has the same bits on any device and in a batch of any
    size. That takes time (see `Loom`); where memory allows, `in_memory` gives the same couplings.

    Args:
        seed: of `pipeline.runtime.noise.noise`.
        rows: images of the data set; where it has flipped copies, those are separate rows.
        shape: (C, H, W).
        noises_per_image: noises for each image.

    Raises:
        InputError: no rows, no noises, or more noises than 31 bits can number.
    """

    seed: int
    rows: int
    shape: tuple[int, ...]
    noises_per_image: int = 1

    def __post_init__(self) -> None:
        _check_count(self.noises_per_image, self.rows)

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        return noise(self.seed, identities, 0, self.shape, device=device)

    def in_memory(self) -> BankNoises:
        """The same noises in memory: 4 * K * rows * C * H * W bytes."""
        every = self.take(torch.arange(self.noises_per_image * self.rows), torch.device("cpu"))
        return BankNoises(every.view(self.noises_per_image, self.rows, *self.shape))


class BankNoises:
    """The noises of a bank, such as a teacher's: LOOM-CFM then begins with the teacher's coupling and refines it.

    Args:
        z: (draws, rows, C, H, W) as `Banked` takes it; one noise per image for each draw.

    Raises:
        InputError: as `Banked`, or more noises than 4 bytes can number.
    """

    def __init__(self, z: Tensor | np.ndarray) -> None:
        self.z = Banked(z).z  # for its checks
        self.noises_per_image, self.rows = map(int, z.shape[:2])
        self.shape = tuple(z.shape[2:])
        _check_count(self.noises_per_image, self.rows)

    def take(self, identities: Tensor, device: torch.device) -> Tensor:
        draw, row = identities.long() // self.rows, identities.long() % self.rows
        if isinstance(self.z, np.ndarray):
            z = torch.from_numpy(self.z[draw.numpy(), row.numpy()])
        else:
            z = self.z[draw.to(self.z.device), row.to(self.z.device)]
        return z.to(device, torch.float32)


def _check_count(noises_per_image: int, rows: int) -> None:
    if noises_per_image < 1 or rows < 1 or noises_per_image * rows >= 1 << 31:
        raise InputError(
            "noises_per_image x rows must lie in 1..2^31 - 1", (noises_per_image, rows), "Use fewer noises per image."
        )
