"""Training images as rows: in an order that differs each epoch, with mirrored copies as separate rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.data.levels import to_unit
from pipeline.runtime.seeds import generator
from storage.bank import Streamed
from storage.imageset import ImageSet
from storage.required import required

AT_ONCE = 2**14  # rows that `pixels_on` holds on the host


@dataclass(frozen=True)
class Examples:
    """Rows of images and labels, in memory or, in a bank, on the disk.

    `images` is (N, C, H, W): uint8 grey levels, or float32 values that are taken as they are, such as latents. With
    `flips`, row N + i of grey levels is row i mirrored: it has another noise, for a TarFlow is not equivariant to
    mirroring. Latents of mirror images are among their rows already: those of a mirrored image are no mirrored latents.
    """

    images: np.ndarray | Streamed
    labels: np.ndarray | None
    levels: int | None = 256
    flips: bool = False

    @classmethod
    def of(cls, images: ImageSet, split: Literal["train", "test"] = "train", flips: bool = False) -> Examples:
        """The images of a split, "train" or "test", with mirrored copies if those are asked for."""
        part = getattr(images, split)
        return cls(part.images, part.labels, images.levels, flips)

    def __len__(self) -> int:
        return len(self.images) * (2 if self._mirrors else 1)

    @property
    def _mirrors(self) -> bool:
        """Whether rows are mirrored here."""
        return self.flips and self.images.dtype == np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.images.shape[1:]

    def pixels(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) float32 of rows (B,): grey levels in [-1, 1], anything else as it is."""
        count = len(self.images)
        chosen = self.images[(rows % count).numpy()]
        if chosen.dtype == np.uint8:
            chosen = to_unit(chosen, required(self.levels, "the number of grey levels"))
        images = torch.from_numpy(chosen)
        mirrored = (rows >= count).view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(-1), images) if self._mirrors else images

    def pixels_on(self, device: torch.device, rows: Tensor) -> Tensor:
        """As `pixels`, on a device, in parts: the host never has all of them in float32."""
        made = torch.empty((len(rows), *self.shape), device=device)
        for at in torch.arange(len(rows)).split(AT_ONCE):
            made[at[0] : at[-1] + 1] = self.pixels(rows[at])
        return made

    def classes(self, rows: Tensor) -> Tensor | None:
        """(B,) int64 labels of rows, None where there are no classes."""
        if self.labels is None:
            return None
        return torch.from_numpy(self.labels[(rows % len(self.images)).numpy()])

    def rows(self, seed: int, step: int, batch: int) -> Tensor:
        """(batch,) the rows of a training step: see `shuffled`."""
        return shuffled(len(self), seed, step, batch)


def shuffled(count: int, seed: int, step: int, batch: int) -> Tensor:
    """(batch,) rows below `count` of a step: without replacement within an epoch, which steps may straddle."""
    first, last = step * batch, (step + 1) * batch
    orders = [_order(seed, epoch, count) for epoch in range(first // count, (last - 1) // count + 1)]
    start = first - (first // count) * count
    return torch.cat(orders)[start : start + batch]


def drawn(count: int, total: int) -> Tensor:
    """(min(count, total),) rows drawn from `total` without replacement, the same each time.

    The first rows may be all of one class.
    """
    return torch.randperm(total, generator=generator("drawn", total))[:count]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    """The permutation of rows of one epoch."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def drop_labels(labels: Tensor | None, probability: float, source: torch.Generator) -> Tensor | None:
    """Labels with a share of them replaced by -1, each image by itself, to train the unconditional path."""
    if labels is None:
        return None
    dropped = torch.rand(labels.shape, generator=source) < probability
    return labels.masked_fill(dropped, -1)
