"""Classes to generate, and images to show next to the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.examples import Examples
from pipeline.runtime.seeds import generator
from storage.imageset import ImageSet


def like_training(images: ImageSet, count: int, seed: int) -> Tensor | None:
    """(count,) labels in the proportions of the training images, in an order that follows from `seed`."""
    if images.train.labels is None:
        return None
    labels = torch.from_numpy(images.train.labels)
    order = torch.randperm(len(labels), generator=generator(seed, "labels"))
    return labels[order.repeat(-(-count // len(labels)))[:count]]


def rows_like(examples: Examples, rows: Tensor, labels: Tensor | None) -> Tensor:
    """Rows of images that have these labels, none twice where that is possible; `rows` themselves without classes."""
    if labels is None:
        return rows
    classes = examples.classes(torch.arange(len(examples)))
    used: dict[int, int] = {}
    chosen = []
    for label in labels.tolist():
        of_class = torch.nonzero(classes == label).flatten()
        chosen.append(int(of_class[used.get(label, 0) % len(of_class)]))
        used[label] = used.get(label, 0) + 1
    return torch.tensor(chosen)
