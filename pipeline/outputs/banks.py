"""Banks in their stages' artifacts, and the encoder that fills them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.tarflow import TarFlow
from pipeline.data.examples import Examples
from pipeline.runtime.noise import noise

BANK = "bank.zarr"
# Images encoded at once. A matrix product's rounding depends on its shape, so this is no setting of the machine: every
# shard is encoded in these pieces, to the same bits.
ENCODE_BATCH = 256

PAIRS, FORWARD = "pairs.zarr", "forward.zarr"
SIGMA_VALUES = 2**24  # numbers at least that sigma_f is measured on: its relative error is below 2e-4
PROBED = 512  # pairs at most whose paths' straightness is measured


def sigma_draws(draws: int, rows: int, dims: int) -> int:
    """Draws of each image that sigma_f is measured on, for `rows` images of `dims` numbers."""
    return min(draws, math.ceil(SIGMA_VALUES / (rows * dims)))


def encoder(
    flow: TarFlow, examples: Examples, eta: float, seed: int, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """A function from flat bank indices (n,), draw * rows + row, to f(x + eta eps, c) (n, C, H, W) on the CPU."""
    count = len(examples)

    def encode(indices: Tensor) -> Tensor:
        pieces = []
        for flat in indices.split(ENCODE_BATCH):
            rows, draws = flat % count, flat // count
            y = examples.pixels(rows).to(device) + eta * noise(seed, rows, draws, examples.shape, device=device)
            labels = examples.classes(rows)
            pieces.append(flow.encode(y, None if labels is None else labels.to(device)).cpu())
        return torch.cat(pieces)

    return encode
