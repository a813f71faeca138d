"""An image set on disk: train and test images of one size, with labels or without, in one Zarr v3 group."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.arrays import create_array, reading
from storage.atomic import fsync_path, fsync_tree, sha256_file
from storage.errors import DamageError, InputError

FORMAT = 1
SHARD_ROWS = 4096
_REMEDY = "Remove it and run the same command again: the data stage writes it anew."


class Split(NamedTuple):
    """Images uint8 (N, C, S, S) of values 0 to levels - 1, and labels int64 (N,), or None if there are no classes."""

    images: np.ndarray
    labels: np.ndarray | None


def write_imageset(
    path: Path, name: str, train: Split, test: Split, levels: int = 256, classes: Sequence[str] | None = None
) -> None:
    """Write an image set to the directory `path`, whole or not at all; an older set there is replaced.

    The bytes follow from the content alone. Raises InputError where the parts do not fit each other.
    """
    import zarr

    splits = {"train": train, "test": test}
    _validate(name, splits, levels, classes)
    path = Path(path)
    if path.exists() and not (path / "zarr.json").is_file():
        raise InputError("an image set replaces nothing but an image set", str(path), "Choose another directory.")
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    root = zarr.create_group(str(aside))
    for split, (images, labels) in splits.items():
        create_array(root, f"{split}/images", images.shape, "uint8", SHARD_ROWS, 0, zstd=True)[:] = images
        if labels is not None:
            create_array(root, f"{split}/labels", labels.shape, "int64", SHARD_ROWS, -1, zstd=True)[:] = labels
    files = sorted(f for f in aside.rglob("*") if f.is_file() and f != aside / "zarr.json")
    facts = {
        "format": FORMAT,
        "name": name,
        "levels": levels,
        "classes": None if classes is None else list(classes),
        "files": {f.relative_to(aside).as_posix(): [f.stat().st_size, sha256_file(f)] for f in files},
    }
    root.update_attributes({**facts, "digest": _digest(facts)})
    fsync_tree(aside)
    if path.exists():
        shutil.rmtree(path)
    os.rename(aside, path)
    fsync_path(path.parent)


@dataclass(frozen=True)
class ImageSet:
    """A set opened by `ImageSet.open`. `train` and `test` are read, and every byte of them verified, at first use."""

    path: Path
    name: str
    levels: int
    classes: list[str] | None
    channels: int
    size: int  # pixels to a side
    files: dict[str, list[Any]]  # size and SHA-256 of each

    @classmethod
    def open(cls, path: Path) -> ImageSet:
        """Open a set and check that its files are there. Raises InputError if there is none, DamageError if damaged."""
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise InputError("an image set is a directory with a zarr.json", str(path), "Run the data stage first.")
        import zarr

        with reading(f"image set {path}, zarr.json", _REMEDY):
            attributes = dict(zarr.open_group(str(path), mode="r").attrs)
            if attributes.pop("digest", None) != _digest(attributes):
                raise DamageError(f"image set {path}, zarr.json", "its attributes were changed", _REMEDY)
            if attributes["format"] != FORMAT:
                raise DamageError(f"image set {path}", f"format {attributes['format']}, we read {FORMAT}", _REMEDY)
            facts = {key: attributes[key] for key in ("name", "levels", "classes", "files")}
        for file, (size, digest) in facts["files"].items():
            _check(path, file, size, digest if file.endswith("zarr.json") else None)
        with reading(f"image set {path}, train/images", _REMEDY):
            _, channels, size, _ = zarr.open_array(str(path / "train/images"), mode="r").shape
        return cls(path, channels=channels, size=size, **facts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size

    @cached_property
    def train(self) -> Split:
        return self._read("train")

    @cached_property
    def test(self) -> Split:
        return self._read("test")

    def _read(self, split: str) -> Split:
        import zarr

        # A missing file reads as zeros, and a flipped bit may change metadata: so every file is hashed first.
        for file, (size, digest) in self.files.items():
            if file.startswith(split):
                _check(self.path, file, size, digest)
        what = f"image set {self.path}, {split}"
        with reading(what, _REMEDY):
            images = zarr.open_array(str(self.path / split / "images"), mode="r")[:]
            labelled = self.classes is not None
            labels = zarr.open_array(str(self.path / split / "labels"), mode="r")[:] if labelled else None
        read = Split(images, labels)
        try:
            _validate(self.name, {split: read}, self.levels, self.classes)
        except InputError as error:
            raise DamageError(what, str(error), _REMEDY) from error
        return read


def _validate(name: str, splits: dict[str, Split], levels: int, classes: Sequence[str] | None) -> None:
    """Raise InputError naming the first rule that the set breaks."""
    if not 2 <= levels <= 256:
        raise InputError("an image set has 2 to 256 levels", levels, "Use 256 for 8-bit images.")
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise InputError("class names are distinct, and at least one", list(classes), "Name each class once.")
    for split, (images, labels) in splits.items():
        what = f"{split} of {name!r}"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3] or not images.size:
            found = f"{images.dtype} {images.shape}"
            raise InputError(f"images of {what} are uint8 (N, C, S, S), at least one", found, "Crop them to squares.")
        if int(images.max()) >= levels:
            raise InputError(f"pixels of {what} are below {levels}", int(images.max()), "Raise levels, or scale them.")
        if (labels is None) != (classes is None):
            found = "no labels" if labels is None else "no class names"
            raise InputError(f"{what} has labels and class names, or neither", found, "Give both.")
        if labels is not None and classes is not None:
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                found = f"{labels.dtype} {labels.shape}"
                raise InputError(f"labels of {what} are int64 ({len(images)},)", found, "Give one for each image.")
            if labels.min() < 0 or labels.max() >= len(classes):
                found = f"{labels.min()} to {labels.max()}"
                raise InputError(f"labels of {what} are 0 to {len(classes) - 1}", found, "Number the classes from 0.")
    sizes = {split: images.shape[1:] for split, (images, _) in splits.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"train and test images of {name!r} have one shape", sizes, "Resize them: set data.size.")


def _check(path: Path, file: str, size: int, digest: str | None) -> None:
    """Raise DamageError unless `file` has its size and, if given, its SHA-256."""
    found = None
    if not (path / file).is_file():
        found = "is missing"
    elif (actual := (path / file).stat().st_size) != size:
        found = f"has {actual} bytes instead of {size}"
    elif digest and sha256_file(path / file) != digest:
        found = "its bytes are not those written (SHA-256)"
    if found:
        raise DamageError(f"image set {path}, {file}", found, _REMEDY)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
