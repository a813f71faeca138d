"""The nearest training images of samples and of held-out images, for the question whether models memorise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipeline.data.examples import Examples, drawn
from pipeline.metrics.neighbours import STORED_SAMPLES, nearest
from storage.imageset import ImageSet

VALUES_IN_MEMORY = 2**24  # of training images, float32: 64 MiB


class TrainingSetNeighbours:
    """The training images, with the mirrored copies that networks were trained on.

    Args:
        images: the originals, not latents.
        flips: whether networks saw mirror images.
        device: where distances are computed.
        progress: called with the training images compared so far and their number; may raise to stop.
    """

    def __init__(
        self,
        images: ImageSet,
        flips: bool,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.train, self.test = Examples.of(images, flips=flips), Examples.of(images, "test")
        self.device, self.progress = torch.device(device), progress

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (n,) of images (n, C, H, W) to their nearest training image, and its row (n,)."""
        distances, rows = nearest(images.to(self.device), self._parts())
        return distances.cpu(), rows.cpu()

    def held_out(self) -> Tensor:
        """(n,) distances of at most `STORED_SAMPLES` held-out images, drawn at random: the yardstick."""
        return self.nearest(self.test.pixels(drawn(STORED_SAMPLES, len(self.test))))[0]

    def _parts(self) -> Iterator[Tensor]:
        step = max(1, VALUES_IN_MEMORY // math.prod(self.train.shape))
        for rows in torch.arange(len(self.train)).split(step):
            yield self.train.pixels(rows).to(self.device)
            self.progress(int(rows[-1]) + 1, len(self.train))
