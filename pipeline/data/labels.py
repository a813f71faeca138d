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


def like_held_out(images: ImageSet, labels: Tensor | None, count: int) -> Tensor | None:
    """(count,) bool: the first as many of `count` samples with these labels as there are held-out images, and of each
    class as many as of theirs; None where there are too few samples, of one class even. A mix of classes that is a
    little off moves a Frechet distance more than bad samples."""
    if labels is None or images.originals.test.labels is None:
        there = len(images.originals.test.images)
        return torch.arange(count) < there if count >= there else None
    labels, held_out = labels.long(), torch.from_numpy(images.originals.test.labels).long()
    wanted = torch.bincount(held_out, minlength=int(labels.max()) + 1)
    made = torch.bincount(labels, minlength=len(wanted))
    if (made < wanted).any():
        return None
    first = made.cumsum(0) - made  # where each class begins in `order`
    order = labels.argsort(stable=True)
    place = torch.empty_like(order)  # (count,) how many of its class come before
    place[order] = torch.arange(count) - first[labels[order]]
    return place < wanted[labels]


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
