"""Do models repeat what they were trained on? Their samples' nearest training images, beside those of held-out ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.data.examples import Examples, drawn
from pipeline.metrics.neighbours import Memorisation, judged, nearest
from storage.imageset import ImageSet

COMPARED = 1_000  # samples, and held-out images, at most: percentiles of more change little, and each meets all images
AT_ONCE = 2**26  # numbers of training images in memory at a time: 256 MB


class TrainingSetNeighbours:
    """The training images, mirrored too where they were trained on so, and the held-out ones as the yardstick.

    Args:
        images: the originals, not latents.
        flips: whether networks saw mirror images.
        device: where distances are computed.
    """

    def __init__(self, images: ImageSet, flips: bool, device: torch.device | str = "cpu") -> None:
        self.train = Examples.of(images, flips=flips)
        test = Examples.of(images, "test")
        self.device = torch.device(device)
        self.held_out = self.nearest(test.pixels(drawn(COMPARED, len(test))))[0] if len(test) else None

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (n,) of images (n, C, H, W) to their nearest training image, and its row (n,)."""
        distances, rows = nearest(images.to(self.device), self._parts())
        return distances.cpu(), rows.cpu()

    def judged(self, distances: Tensor) -> Memorisation | None:
        """Distances of samples against those of held-out images; None where there are no such."""
        return None if self.held_out is None else judged(distances, self.held_out)

    def _parts(self) -> Iterator[Tensor]:
        step = max(1, AT_ONCE // self.train.images[0].size)
        for rows in torch.arange(len(self.train)).split(step):
            yield self.train.pixels(rows).to(self.device)
