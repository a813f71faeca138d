"""Banks in their stages' artifacts, and the encoder that fills them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.tarflow import TarFlow
from pipeline.couplings import Standard
from pipeline.data.examples import Examples
from pipeline.recipe.sections import Compute
from pipeline.runtime.noise import noise
from storage.bank import Bank, Streamed

log = logging.getLogger(__name__)
BANK = "bank.zarr"
# Images encoded at once. A matrix product's rounding depends on its shape, so this is no setting of the machine: every
# shard is encoded in these pieces, to the same bits.
ENCODE_BATCH = 256

PAIRS, FORWARD = "pairs.zarr", "forward.zarr"
SIGMA_VALUES = 2**24  # numbers at least that sigma_f is measured on: its relative error is below 2e-4
PROBED = 512  # pairs at most whose paths' straightness is measured
UNSCALED = Standard(1.0)


def sigma_draws(draws: int, rows: int, dims: int) -> int:
    """Draws of each image that sigma_f is measured on, for `rows` images of `dims` numbers."""
    return min(draws, math.ceil(SIGMA_VALUES / (rows * dims)))


class StoredPairs(NamedTuple):
    """The arrays of a bank, where it has them: z and x (draws, rows, C, H, W), labels (draws, rows) in memory."""

    z: np.ndarray | Streamed
    x: np.ndarray | Streamed | None
    labels: np.ndarray | None


def open_arrays(banks: Sequence[Bank], compute: Compute) -> list[StoredPairs]:
    """The arrays of banks: in memory if all of them fit `compute.bank_memory_share`, else on the disk, where rows are
    read as they are asked for. The values are the same."""
    size = sum(bank.facts.pairs * sum(bank.row_bytes.values()) for bank in banks)
    if size <= compute.bank_bytes:
        loaded = [bank.load() for bank in banks]
        return [StoredPairs(arrays["z"], arrays.get("x"), arrays.get("labels")) for arrays in loaded]
    log.info(
        "%.1f GB of pairs are read from the disk: compute.bank_memory_share is %.1f GB of memory",
        size / 1e9,
        compute.bank_bytes / 1e9,
    )
    return [_streamed(bank) for bank in banks]


def _streamed(bank: Bank) -> StoredPairs:
    labels = bank.load(["labels"])["labels"] if "labels" in bank.arrays else None
    return StoredPairs(Streamed(bank, "z"), Streamed(bank, "x") if "x" in bank.arrays else None, labels)


def encoder(
    flow: TarFlow, examples: Examples, eta: float, seed: int, device: torch.device, standard: Standard = UNSCALED
) -> Callable[[Tensor], Tensor]:
    """A function from flat bank indices (n,), draw * rows + row, to standard(f(x + eta eps, c), c), (n, C, H, W) on the
    CPU."""
    count = len(examples)

    def encode(indices: Tensor) -> Tensor:
        pieces = []
        for flat in indices.split(ENCODE_BATCH):
            rows, draws = flat % count, flat // count
            y = examples.pixels(rows).to(device) + eta * noise(seed, rows, draws, examples.shape, device=device)
            labels = examples.classes(rows)
            labels = None if labels is None else labels.to(device)
            pieces.append(standard(flow.encode(y, labels), labels).cpu())
        return torch.cat(pieces)

    return encode
