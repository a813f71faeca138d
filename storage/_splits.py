"""The arrays of an image set's splits, and the rules that they must meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from storage.errors import DataError


class Split(NamedTuple):
    """N images and their labels.

    `images` is (N, C, S, S): uint8 grey levels of values 0 to levels - 1, or float32 latents. `labels` is int64 (N,),
    or None if there are no classes.
    """

    images: np.ndarray
    labels: np.ndarray | None


def require_images(name: str, splits: dict[str, Split], levels: int, classes: Sequence[str] | None) -> None:
    """Raise DataError naming the first rule that a set of grey levels breaks."""
    if not 2 <= levels <= 256:
        raise DataError("An image set must have 2 to 256 levels", levels, "Use 256 for 8-bit images.")
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise DataError("Class names must be distinct, and at least one", list(classes), "Name each class once.")
    for split, (images, labels) in splits.items():
        what = f"{split} of {name!r}"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3] or not images.size:
            actual = f"{images.dtype} {images.shape}"
            raise DataError(
                f"Images of {what} must be uint8 (N, C, S, S), at least one", actual, "Crop them to squares."
            )
        if int(images.max()) >= levels:
            raise DataError(
                f"Pixels of {what} must be below {levels}", int(images.max()), "Raise levels, or scale them."
            )
        if (labels is None) != (classes is None):
            actual = "no labels" if labels is None else "no class names"
            raise DataError(f"{what} must have labels and class names, or neither", actual, "Give both.")
        if labels is not None and classes is not None:
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                actual = f"{labels.dtype} {labels.shape}"
                raise DataError(f"Labels of {what} must be int64 ({len(images)},)", actual, "Give one for each image.")
            if labels.min() < 0 or labels.max() >= len(classes):
                actual = f"{labels.min()} to {labels.max()}"
                raise DataError(
                    f"Labels of {what} must be 0 to {len(classes) - 1}", actual, "Number the classes from 0."
                )
    _require_one_shape(name, {split: images for split, (images, _) in splits.items()})


def require_latents(name: str, latents: dict[str, np.ndarray], counts: dict[str, int]) -> None:
    """Raise DataError naming the first rule that latents break. `counts` are the images of each split."""
    for split, array in latents.items():
        what = f"Latents of {split} of {name!r}"
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[2] != array.shape[3] or not array.size:
            raise DataError(f"{what} must be float32 (N, C, S, S)", f"{array.dtype} {array.shape}", "Encode squares.")
        images = counts[split]
        allowed = (images, 2 * images) if split == "train" else (images,)
        if len(array) not in allowed:
            rule = f"{what} must be as many as its images, or in train twice as many, with mirror images"
            raise DataError(rule, f"{len(array)} of {images} images", "Encode every image.")
        if not np.isfinite(array).all():
            actual = f"{int((~np.isfinite(array)).sum())} of {array.size} values"
            raise DataError(f"{what} must be finite", actual, "Check that the autoencoder reconstructs its own images.")
    _require_one_shape(name, latents)


def _require_one_shape(name: str, arrays: dict[str, np.ndarray]) -> None:
    shapes = {split: array.shape[1:] for split, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"Train and test images of {name!r} must have one shape", shapes, "Resize them: set data.size.")
