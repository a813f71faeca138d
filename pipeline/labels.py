"""Which classes to generate."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.runtime import generator
from storage.imageset import ImageSet


def like_training(images: ImageSet, count: int, seed: int) -> Tensor | None:
    """(count,) labels in the proportions of the training images, in an order that follows from `seed`."""
    if images.train.labels is None:
        return None
    labels = torch.from_numpy(images.train.labels)
    order = torch.randperm(len(labels), generator=generator(seed, "labels"))
    return labels[order.repeat(-(-count // len(labels)))[:count]]
