"""Which images train and which test, by rules that give the same answer everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.data.sources.text import listed, normal, shown
from storage.bank.shuffle import permutation
from storage.errors import DataError, RecipeError
from storage.imageset import Split

if TYPE_CHECKING:
    from pipeline.recipe.sections import Data


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


def balanced(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Indices of at most `limit` images: one of each class, then a second of each, and so on; `labels` (N,) may be all
    alike.

    Which ones is drawn: images come in the order of their names, so the first are often of one subject or one moment.
    A larger limit adds to the images of a smaller one.
    """
    rank = np.empty(len(labels), dtype=np.int64)  # place of an image within its class, in the order drawn
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members[permutation(len(members), "limit", seed, int(label))]] = np.arange(len(members))
    return np.lexsort((labels, rank))[:limit]


class Selection(NamedTuple):
    """Rows of the training and of the test images to use; the labels of the classes that remain, None for all."""

    train: np.ndarray
    test: np.ndarray
    numbers: np.ndarray | None
    dropped: list[str]  # names of classes

    def split(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Split:
        """The images and labels at `rows`; labels become 0, 1, ... in the order of `numbers`."""
        chosen = labels[rows]
        return Split(
            images[rows], chosen if self.numbers is None else np.searchsorted(self.numbers, chosen).astype(np.int64)
        )

    def named(self, classes: list[str]) -> list[str]:
        """The names that the new labels have."""
        return classes if self.numbers is None else [classes[number] for number in self.numbers]


def select(config: Data, source: str, train: np.ndarray, test: np.ndarray, classes: list[str] | None) -> Selection:
    """Choose `config.classes`, then at most `config.limit` images of each split, then settle classes too small.

    This follows the split into train and test, so that no choice of classes moves an image across.

    Args:
        train, test: (N,) and (M,) labels of all images; all alike where there are no classes.
        classes: names of the labels, None where there are no classes.

    Raises:
        DataError: a class has no training image or no test image and `config.small_classes` refuses that; or fewer
            than 2 training images or 1 test image remain.
        RecipeError: `config.classes` has an unknown name.
    """
    numbers = _numbers_of(config.classes, classes, source)
    rows = [np.arange(len(labels)) for labels in (train, test)]
    if numbers is not None:
        rows = [part[np.isin(labels[part], numbers)] for part, labels in zip(rows, (train, test), strict=True)]
    asked = np.arange(len(classes or ())) if numbers is None else numbers

    def is_enough() -> np.ndarray:
        """Whether each class asked for has images of both splits."""
        return np.isin(asked, train[rows[0]]) & np.isin(asked, test[rows[1]])

    enough = before_limit = is_enough()
    if config.limit is not None:
        chosen = zip(rows, (train, test), strict=True)
        rows = [part[balanced(labels[part], config.limit, config.seed)] for part, labels in chosen]
        enough = is_enough()
    small: list[str] = []
    if classes is not None:
        refused = {"refuse": ~enough, "drop-limited": ~before_limit, "drop": np.zeros_like(enough)}
        if wrong := [classes[number] for number in asked[refused[config.small_classes]]]:
            value = f"{len(wrong)} of {len(asked)} classes without: {listed(wrong)}"
            limited = "raise data.limit, " * (config.limit is not None and config.small_classes == "refuse")
            remedy = f"Add images, {limited}change data.test_fraction, or set data.small_classes to drop."
            raise DataError(f"Each class of {source} must have a training image and a test image", value, remedy)
        small = [classes[number] for number in asked[~enough]]
        if small:
            numbers = asked[enough]
            rows = [part[np.isin(labels[part], numbers)] for part, labels in zip(rows, (train, test), strict=True)]
    if len(rows[0]) < 2 or len(rows[1]) < 1:
        remedy = "Add images, or change data.test_fraction or data.limit."
        value = f"{len(rows[0])} and {len(rows[1])}"
        raise DataError(f"{source} must have at least 2 training images and 1 test image", value, remedy)
    return Selection(rows[0], rows[1], numbers, small)


def _numbers_of(names: tuple[str, ...] | None, classes: list[str] | None, source: str) -> np.ndarray | None:
    """The labels of the classes of these names, in rising order; None for all."""
    if names is None:
        return None
    if classes is None:
        remedy = "Leave it out, or sort images into folders."
        raise RecipeError("data.classes must be left out for images without classes", f"{source} has none", remedy)
    asked, all_names = [normal(name) for name in names], [normal(name) for name in classes]
    unknown = [name for name in asked if name not in all_names]
    if unknown:
        raise RecipeError(
            f"data.classes must name classes of {source}", unknown, f"They are {', '.join(map(shown, classes))}."
        )
    return np.array(sorted(all_names.index(name) for name in asked))
