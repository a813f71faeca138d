"""A coupling bank as a PyTorch data set, for training other networks on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.data.examples import Examples
from storage.bank import Bank, BatchReader
from storage.errors import InputError
from storage.imageset import ImageSet


class BankDataset(IterableDataset):
    """Whole batches of pairs (x, z): give a DataLoader `batch_size=None`.

    A batch is a dict of tensors: "z" (B, C, H, W) float32, noise of unit size; "x" (B, C, H, W) float32, its image in
    [-1, 1], where the bank or `images` has it; "labels" (B,) int64, where there are classes; "index" (B,) int64, the
    flat index draw * rows + row. In the convention of this project x is at t = 0 and z at t = 1: train the network on
    x_t = (1 - t) x + t z with the target z - x (NFM, Berthelot et al. 2026, arXiv 2603.09014).

    Epochs follow each other without end, or `epochs` of them; the last batch of each may be shorter. The order follows
    from (seed, epoch, rank); see `storage.bank.BatchReader` for it, and for `buffer_bytes`. With
    DataLoader workers each has a share of the pairs and of the buffer, and reads it by itself, so the order follows
    from their number too. Workers help where a bank is larger than the buffer; a resident one is read faster without.

    Args:
        bank: the bank's directory.
        batch: pairs in a batch of this rank.
        images: directory of the image set that was encoded; `flowctl bank inspect` names it.
        seed: of the order.
        start: batches that this rank has used before; the data set resumes after them.
        epochs: number of epochs, those before `start` included; None for no end.
        rank, world: number of this process and count of all; they have disjoint shares of each epoch.
        buffer_bytes: memory for pairs.
        device: of the tensors, and of a bank that fits the buffer. Only without workers, unless "cpu".

    Raises:
        InputError: no such bank or image set, an image set of another size than the bank's, or an invalid argument.
        DamageError: while reading, a damaged chunk.
    """

    def __init__(
        self,
        bank: str | Path,
        batch: int,
        images: str | Path | None = None,
        *,
        seed: int = 0,
        start: int = 0,
        epochs: int | None = None,
        rank: int = 0,
        world: int = 1,
        buffer_bytes: int = 2**30,
        device: str | torch.device = "cpu",
    ) -> None:
        self.bank = Bank.open(Path(bank))
        self.images = None if images is None else Path(images)
        self.batch, self.seed, self.start, self.epochs = batch, seed, start, epochs
        self.rank, self.world, self.buffer_bytes, self.device = rank, world, buffer_bytes, torch.device(device)
        if start < 0:
            raise InputError("start must be >= 0", start, "Give the number of batches used before.")
        self._reader(0, 1)  # raises for invalid arguments here, not in a worker
        rows = None if self._examples is None else len(self._examples)
        if rows not in (None, self.bank.facts.rows):
            rule = f"images must be the {self.bank.facts.rows} images of the bank"
            raise InputError(rule, f"{rows} in {self.images}", "Give the image set that its teacher encoded.")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if workers > 1 and self.device.type != "cpu":
            raise InputError(
                "device must be cpu with several workers", str(self.device), "Leave out device or num_workers."
            )
        # A DataLoader asks worker 0 first, so that worker takes the part of the one whose turn it is at `start`.
        done, part = divmod(self.start + number, workers)
        reader = self._reader(part, workers)
        begin, first = divmod(done, len(reader))
        for epoch in itertools.count(begin) if self.epochs is None else range(begin, self.epochs):
            yield from self._epoch(reader, epoch, first)
            first = 0

    def _reader(self, part: int, parts: int) -> BatchReader:
        return BatchReader(self.bank, self.batch, self.seed, rank=self.rank * parts + part, world=self.world * parts,
                                buffer_bytes=self.buffer_bytes // parts)  # fmt: skip

    def _epoch(self, reader: BatchReader, epoch: int, first: int) -> Iterator[dict[str, Tensor]]:
        if reader.resident:
            for chosen in map(torch.from_numpy, reader.indices(epoch, first)):
                there = chosen.to(self.device)
                yield self._whole(chosen, {name: rows[there] for name, rows in self._resident.items()})
        else:
            for arrays in reader.epoch(epoch, first):
                tensors = {name: torch.from_numpy(rows) for name, rows in arrays.items()}
                yield self._whole(tensors.pop("index"), tensors)

    def _whole(self, index: Tensor, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch, with images and labels that the bank does not hold."""
        rows = index % self.bank.facts.rows
        if self._examples is not None and "x" not in stored:
            stored["x"] = self._examples.pixels(rows)
        labels = None if self._examples is None else self._examples.classes(rows)
        if labels is not None:
            stored.setdefault("labels", labels)
        stored = {name: values.float() if values.is_floating_point() else values for name, values in stored.items()}
        return {name: values.to(self.device) for name, values in {"index": index, **stored}.items()}

    @cached_property
    def _examples(self) -> Examples | None:
        if self.images is None:
            return None
        return Examples.of(ImageSet.open(self.images), flips=self.bank.facts.flips)

    @cached_property
    def _resident(self) -> dict[str, Tensor]:
        """The bank on the device, by flat index."""
        return {name: torch.from_numpy(np.ascontiguousarray(rows)).flatten(0, 1).to(self.device)
                for name, rows in self.bank.load().items()}  # fmt: skip
