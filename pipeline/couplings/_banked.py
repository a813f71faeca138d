"""Stored couplings: the teacher's, or those of a trained flow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from storage.errors import InputError


class Banked:
    """z from a bank of several draws per image; each visit takes a random draw.

    Args:
        z: (draws, rows, C, H, W), float16 or float32, a tensor on any device or an array, memory-mapped perhaps. Where
            the data set has flipped copies, each is a row.

    Raises:
        InputError: not five dimensions, empty, or of another type.
    """

    def __init__(self, z: Tensor | np.ndarray) -> None:
        if z.ndim != 5 or 0 in z.shape:
            raise InputError(
                "A bank must have the shape (draws, rows, C, H, W)", tuple(z.shape), "Encode the data set first."
            )
        if z.dtype not in (torch.float16, torch.float32, np.float16, np.float32):
            raise InputError("A bank must hold float16 or float32", str(z.dtype), "Encode it in one of them.")
        self.z = z

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`.

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
        draw = torch.randint(draws, (len(rows),), generator=generator)  # (B,)
        if isinstance(self.z, np.ndarray):
            z = torch.from_numpy(self.z[draw.numpy(), rows.cpu().numpy()])
        else:
            z = self.z[draw.to(self.z.device), rows.to(self.z.device)]
        return z.to(x.device, torch.float32)
