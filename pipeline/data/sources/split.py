"""Which images train and which test, by rules that give the same answer everywhere."""

from __future__ import annotations

import numpy as np

from storage.bank.shuffle import permutation
from storage.errors import InputError
from storage.imageset import Split


def stratified(labels: np.ndarray, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of train and test images, each in rising order; `labels` (N,) may be all alike.

    The test set has round(N * test_fraction) images, and each class its share of them up to one image.
    """
    test = []
    cut = 0.0  # after each class the running total is rounded, so the roundings do not add up
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        before, cut = round(cut), cut + len(members) * test_fraction
        test.append(members[permutation(len(members), "split", seed, int(label))[: round(cut) - before]])
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.concatenate(test)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def balanced(labels: np.ndarray, limit: int) -> np.ndarray:
    """Indices of at most `limit` images: the first of each class, then the second of each, and so on."""
    rank = np.empty(len(labels), dtype=np.int64)  # place of an image within its class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((labels, rank))[:limit]


def numbers_of(only: tuple[str, ...] | None, classes: list[str] | None, source: str) -> np.ndarray | None:
    """The labels of the classes named in `only`, in rising order; None for all. Raises InputError for unknown names."""
    if only is None:
        return None
    if classes is None:
        raise InputError(
            "data.classes names classes", f"{source} has none", "Leave it out, or sort images into folders."
        )
    unknown = [name for name in only if name not in classes]
    if unknown:
        raise InputError(f"data.classes names classes of {source}", unknown, f"They are {', '.join(classes)}.")
    return np.array(sorted(classes.index(name) for name in only))


def renumbered(labels: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
    """`labels`, all of them in `numbers`, as 0, 1, ... in the order of `numbers`; as they are if that is None."""
    return labels if numbers is None else np.searchsorted(numbers, labels).astype(np.int64)


def named(classes: list[str], numbers: np.ndarray | None) -> list[str]:
    """The names that `renumbered` labels have."""
    return classes if numbers is None else [classes[i] for i in numbers]


def only_classes(split: Split, numbers: np.ndarray | None) -> Split:
    """The images of the classes in `numbers`, their labels renumbered; all of `split` if that is None.

    Choose after the split into train and test, so that no other choice of classes moves an image across.
    """
    if numbers is None:
        return split
    kept = np.isin(split.labels, numbers)
    return Split(split.images[kept], renumbered(split.labels[kept], numbers))


def limited(split: Split, limit: int | None) -> Split:
    """`split` cut to `limit` images, balanced over the classes; untouched if `limit` is None."""
    if limit is None:
        return split
    images, labels = split
    keep = balanced(np.zeros(len(images), np.int64) if labels is None else labels, limit)
    return Split(images[keep], None if labels is None else labels[keep])


def require_enough(name: str, train: int, test: int) -> None:
    """Raise InputError unless there are 2 images to train on and 1 to test with."""
    if train < 2 or test < 1:
        remedy = "Add images, or change data.test_fraction or data.limit."
        raise InputError(f"{name} has at least 2 training images and 1 test image", f"{train} and {test}", remedy)
