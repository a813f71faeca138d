"""A coupling bank as a PyTorch data set, for whoever trains a student of their own on it."""

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
    """Batches of couples, each already whole: give a DataLoader `batch_size=None`.

    A batch is a dict of tensors: "z" (B, C, H, W) float32, noise of unit size; "x" (B, C, H, W) float32, its image in
    [-1, 1], where the bank or `images` has it; "labels" (B,) int64, where there are classes; "index" (B,) int64, the
    flat index draw * rows + row. In the convention of this project x is at t = 0 and z at t = 1: train the network on
    x_t = (1 - t) x + t z with the target z - x (NFM, Berthelot et al. 2026, arXiv 2603.09014).

    Epochs follow each other without end, or `epochs` of them; the last batch of each may be shorter. The order follows
    from (seed, epoch, rank); see `storage.bank.Bank.reader` for how it is made, and for what fits `buffer_bytes`. With
    DataLoader workers each has a share of the pairs and of the buffer, and reads it by itself, so the order follows
    from their number too. Workers help where a bank is larger than the buffer; a resident one is read faster without.

    Args:
        bank: the bank's directory.
        batch: pairs in a batch of this rank.
        images: directory of the image set that the bank was made of; `flowctl bank inspect` names it.
        seed: of the order.
        start: batches that were used before, of this rank: the data set goes on as if it had given them.
        epochs: how many there are, those before `start` included; None for no end.
        rank, world: number of this process and count of all; they have disjoint shares of each epoch.
        buffer_bytes: memory for pairs.
        device: where tensors are given; a bank that fits the buffer is kept there. Only without workers, unless "cpu".

    Raises:
        InputError: no such bank or image set, images of other rows than the bank's, or arguments that cannot be.
        DamageError: while reading, what is not as it was written.
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
            raise InputError("a data set goes on after 0 batches or more", start, "Give the batches used before.")
        self._reader(0, 1)  # raises for what cannot be, here and not in a worker
        rows = None if self._examples is None else len(self._examples)
        if rows not in (None, self.bank.facts.rows):
            rule = f"the bank was made of {self.bank.facts.rows} images"
            raise InputError(rule, f"{rows} in {self.images}", "Give the image set that its teacher encoded.")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if workers > 1 and self.device.type != "cpu":
            raise InputError("workers give tensors on the CPU", str(self.device), "Leave out device or num_workers.")
        # A DataLoader asks worker 0 first, so that worker takes the part of the one whose turn it is at `start`.
        done, part = divmod(self.start + number, workers)
        reader = self._reader(part, workers)
        begin, first = divmod(done, len(reader))
        for epoch in itertools.count(begin) if self.epochs is None else range(begin, self.epochs):
            yield from self._epoch(reader, epoch, first)
            first = 0

    def _reader(self, part: int, parts: int) -> BatchReader:
        return self.bank.reader(self.batch, self.seed, rank=self.rank * parts + part, world=self.world * parts,
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

    def _whole(self, index: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch with what the bank itself does not hold."""
        rows = index % self.bank.facts.rows
        if self._examples is not None and "x" not in found:
            found["x"] = self._examples.pixels(rows)
        labels = None if self._examples is None else self._examples.classes(rows)
        if labels is not None:
            found.setdefault("labels", labels)
        found = {name: values.float() if values.is_floating_point() else values for name, values in found.items()}
        return {name: values.to(self.device) for name, values in {"index": index, **found}.items()}

    @cached_property
    def _examples(self) -> Examples | None:
        if self.images is None:
            return None
        found = ImageSet.open(self.images)
        return Examples.of(found, flips=self.bank.facts.flips)

    @cached_property
    def _resident(self) -> dict[str, Tensor]:
        """The bank on the device, by flat index."""
        return {name: torch.from_numpy(np.ascontiguousarray(rows)).flatten(0, 1).to(self.device)
                for name, rows in self.bank.load().items()}  # fmt: skip
