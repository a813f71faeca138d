"""Stored couplings: the teacher's, or those of a trained flow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling
from storage.bank import Streamed
from storage.errors import InputError

Stored = Tensor | np.ndarray | Streamed  # a bank's array: on a device, in memory or on the disk


class Banked(Coupling):
    """z from a bank of several draws per image; each visit takes a random draw.

    Args:
        z: (draws, rows, C, H, W), float16 or float32. Where the data set has flipped copies, each is a row.
        rank, world: each rank reads the part of the batch that it trains on. The other rows stay zero: no rank uses
            them.

    Raises:
        InputError: not five dimensions, empty, or of another type.
    """

    def __init__(self, z: Stored, rank: int = 0, world: int = 1) -> None:
        if z.ndim != 5 or 0 in z.shape:
            raise InputError(
                "A bank must have the shape (draws, rows, C, H, W)", tuple(z.shape), "Encode the data set first."
            )
        if z.dtype not in (torch.float16, torch.float32, np.float16, np.float32):
            raise InputError("A bank must hold float16 or float32", str(z.dtype), "Encode it in one of them.")
        self.z, self.rank, self.world = z, rank, world

    @property
    def streamed(self) -> bool:
        """Whether its noise is read from the disk at each visit."""
        return isinstance(self.z, Streamed)

    def for_one_rank(self) -> Banked:
        return Banked(self.z)

    def noise_for(
        self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator, read: Tensor | None = None
    ) -> Tensor:
        """See `Coupling.noise_for`. `read` (B,) bool names the rows of this rank where they are not its part of B.

        Raises:
            InputError: a row is not in the bank, or images of another shape.
        """
        del labels
        draws, count, *shape = self.z.shape
        if tuple(x.shape[1:]) != tuple(shape):
            raise InputError(
                f"Images of this bank must have the shape {tuple(shape)}", tuple(x.shape[1:]), "Encode these."
            )
        outside = rows[(rows < 0) | (rows >= count)].tolist()
        if outside:
            raise InputError(
                f"Rows of this bank must lie in 0..{count - 1}", outside[0], "Encode the data set trained on."
            )
        return self.take(torch.randint(draws, (len(rows),), generator=generator), rows, x.device, read)

    def take(self, draw: Tensor, rows: Tensor, device: torch.device, read: Tensor | None = None) -> Tensor:
        """The noises (B, C, H, W) float32 of these draws (B,) and rows (B,), zeros where `read` is False."""
        read = rows_of_rank(len(rows), self.rank, self.world) if read is None else read
        if read.all():
            return taken(self.z, draw, rows, device)
        z = torch.zeros(len(rows), *self.z.shape[2:], device=device)
        z[read.to(device)] = taken(self.z, draw[read], rows[read], device)
        return z


def taken(z: Stored, draw: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """z[draw, rows], (B, C, H, W) float32 on `device`."""
    if isinstance(z, Tensor):
        return z[draw.to(z.device), rows.to(z.device)].to(device, torch.float32)
    return torch.from_numpy(z[draw.cpu().numpy(), rows.cpu().numpy()]).to(device, torch.float32)


def rows_of_rank(count: int, rank: int, world: int) -> Tensor:
    """Which of `count` rows are those of a rank, (count,) bool: `world` equal parts, as batches are split."""
    share = count // world
    places = torch.arange(count)
    return (places >= rank * share) & (places < (rank + 1) * share)
