"""Pairs without the longest: those whose noise lies farthest from the image are left out of a training.

They are the pairs whose straight lines cross most others (field practice with pairs of a trained flow: drop a tenth).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Generator, Tensor

from pipeline.couplings import Banked, Coupling
from pipeline.data.examples import Examples, shuffled
from pipeline.outputs.results import Truncation
from pipeline.outputs.tensorfile import write_tensors
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.bank import Bank

RETAINED = "retained.safetensors"
READ_BYTES = 2**24  # of pairs that are measured at once
Images = Callable[[np.ndarray], np.ndarray]


class Truncated(Coupling):
    """Both the examples and the coupling of a training on the pairs of a bank that are left.

    Row i is the pair number `retained[i]` of the bank, draw * rows + row, so that an epoch holds each pair once.

    Args:
        examples: of which the bank holds the noises.
        retained: flat indices of pairs, rising.
    """

    def __init__(self, examples: Examples, bank: Banked, retained: np.ndarray) -> None:
        self.examples, self.bank, self.retained = examples, bank, torch.from_numpy(retained)

    @property
    def streamed(self) -> bool:
        return self.bank.streamed

    def for_one_rank(self) -> Truncated:
        return Truncated(self.examples, self.bank.for_one_rank(), self.retained.numpy())

    def __len__(self) -> int:
        return len(self.retained)

    @property
    def pairs(self) -> int:
        """Pairs of the bank."""
        return self.bank.z.shape[0] * self.bank.z.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.examples.shape

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the images that the pairs are of, None where there are no classes."""
        return self.examples.labels

    def rows(self, seed: int, step: int, batch: int) -> Tensor:
        """(batch,) the rows of a training step: see `pipeline.data.examples.shuffled`."""
        return shuffled(len(self), seed, step, batch)

    def images(self, rows: Tensor) -> Tensor:
        """(B,) the examples of rows (B,)."""
        return self.retained[rows] % len(self.examples)

    def pixels(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) images of rows (B,)."""
        return self.examples.pixels(self.images(rows))

    def classes(self, rows: Tensor) -> Tensor | None:
        """(B,) int64 labels of rows, None where there are no classes."""
        return self.examples.classes(self.images(rows))

    def noise_for(
        self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator, read: Tensor | None = None
    ) -> Tensor:
        """See `pipeline.couplings.Banked.noise_for`; the row says which draw."""
        del labels, generator
        flat = self.retained[rows]
        return self.bank.take(flat // len(self.examples), flat % len(self.examples), x.device, read)


def without_longest(job: Job, bank: Bank, share: float, images: Images | None = None, intervals: int = 1) -> np.ndarray:
    """Flat indices, rising, of the pairs that are left without the `share` of the largest |x - z|; also on the disk.

    Of n pairs the round(share n) longest go, of equal ones the first; one stays at least. Each rank measures its part
    of the bank.

    Args:
        images: gives the images (n, C, H, W) float32 of rows (n,) of the bank; the bank's x unless given.
        intervals: consecutive pairs that are parts of one path, which goes or stays as a whole, by its ends' distance.
    """
    path = job.out / RETAINED
    if ranks.agreed(path.exists()):
        return load_retained(path)
    lengths = _lengths(job, bank, images, intervals)
    left = np.ones(len(lengths), dtype=bool)
    left[np.argsort(-lengths, kind="stable")[: min(round(share * len(lengths)), len(lengths) - 1)]] = False
    retained = np.flatnonzero(np.repeat(left, intervals))
    if ranks.first():
        write_tensors(path, {"retained": torch.from_numpy(retained)})
    return retained


def load_retained(path: Path) -> np.ndarray:
    """The flat indices that `without_longest` wrote."""
    return load_file(path)["retained"]


def truncation(pairs: int, retained: np.ndarray, labels: np.ndarray | None) -> Truncation:
    """The result's account of which pairs are left out: `labels` (pairs,) are those of all of them."""
    by_class = None
    if labels is not None:
        every, left = (np.bincount(part, minlength=labels.max() + 1) for part in (labels, labels[retained]))
        by_class = tuple((every - left).tolist())
    return Truncation(pairs=pairs, dropped=pairs - len(retained), dropped_by_class=by_class)


def _lengths(job: Job, bank: Bank, images: Images | None, intervals: int) -> np.ndarray:
    """|x - z| of each path, (paths,) float64, on every rank."""
    count = max(1, READ_BYTES // (sum(bank.row_bytes.values()) * intervals)) * intervals
    parts = []
    for start in ranks.mine(range(0, bank.facts.pairs, count)):
        flat = np.arange(start, min(start + count, bank.facts.pairs))
        arrays = bank.rows(flat)
        x = arrays["x"][::intervals] if images is None else images(flat % bank.facts.rows)
        difference = x.astype(np.float64) - arrays["z"][intervals - 1 :: intervals]
        parts.append((start, np.sqrt(np.square(difference).reshape(len(x), -1).sum(1))))
        job.progress(int(flat[-1]) + 1, bank.facts.pairs, "pairs measured")
        job.pause_point()
    every = sorted((part for of_rank in ranks.gathered(parts) for part in of_rank), key=lambda part: part[0])
    return np.concatenate([lengths for _, lengths in every])
