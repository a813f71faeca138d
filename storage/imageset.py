"""An image set on disk: train and test images of one size, with labels or without, in one Zarr v3 group.

It may hold latents next to the images: networks are then trained on those, and measured against the images.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from storage._splits import Split as Split
from storage._splits import require_images, require_latents
from storage.arrays import create_array
from storage.atomic import fsync_path, fsync_tree, sha256_file
from storage.checksummed_json import json_digest
from storage.errors import DamageError, DataError, InputError, MissingError, reading
from storage.trees import move

FORMAT = 1
SHARD_ROWS = 4096
_REMEDY = "Rebuild it: `flowctl verify --repair`; or remove it, and the next run writes it."


def write_imageset(
    path: Path,
    name: str,
    train: Split,
    test: Split,
    levels: int = 256,
    classes: Sequence[str] | None = None,
    latents: tuple[np.ndarray, np.ndarray] | None = None,
    conditional: bool = True,
) -> None:
    """Write an image set to the directory `path`, whole or not at all; an older set there is replaced.

    The bytes follow from the content alone. Raises DataError where the parts do not fit each other.

    Args:
        path: the directory.
        name: of the data set.
        train, test: images uint8 (N, C, S, S) and labels.
        levels: number of grey levels.
        classes: names of the labels 0, 1, ...
        latents: float32 (N or 2 N, c, s, s) of train, the second N of its mirror images, and (N, c, s, s) of test.
        conditional: whether networks get the classes. The originals keep them either way.
    """
    import zarr

    splits = {"train": train, "test": test}
    require_images(name, splits, levels, classes)
    encoded = {} if latents is None else dict(zip(splits, latents, strict=True))
    require_latents(name, encoded, {split: len(images) for split, (images, _) in splits.items()})
    path = Path(path)
    if path.exists() and not (path / "zarr.json").is_file():
        raise InputError(
            "An image set must not replace anything but an image set", str(path), "Choose another directory."
        )
    aside, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old.partial")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    root = zarr.create_group(str(aside))
    for split, (images, labels) in splits.items():
        create_array(root, f"{split}/images", images.shape, "uint8", SHARD_ROWS, 0, zstd=True)[:] = images
        if labels is not None:
            create_array(root, f"{split}/labels", labels.shape, "int64", SHARD_ROWS, -1, zstd=True)[:] = labels
        if split in encoded:
            shape, lost = encoded[split].shape, float("nan")
            create_array(root, f"{split}/latents", shape, "float32", SHARD_ROWS, lost, zstd=False)[:] = encoded[split]
    files = sorted(f for f in aside.rglob("*") if f.is_file() and f != aside / "zarr.json")
    facts = {
        "format": FORMAT,
        "name": name,
        "levels": levels,
        "classes": None if classes is None else list(classes),
        "conditional": conditional,
        "files": {f.relative_to(aside).as_posix(): [f.stat().st_size, sha256_file(f)] for f in files},
    }
    root.update_attributes({**facts, "digest": json_digest(facts)})
    fsync_tree(aside)
    if path.exists():
        move(path, old)  # whole: a half removed set would not be recognised as one
    os.rename(aside, path)
    fsync_path(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class ImageSet:
    """A set opened by `ImageSet.open`, as networks see it: latents where it holds them, classes where it tells them.

    `train` and `test` are read, and every byte of them verified, at first use. With latents of mirror images, row N + i
    of `train` is that of the mirror image of row i. `originals` is the set as it came: images, with all their classes.

    Attributes:
        path: the directory.
        name: of the data set.
        levels: number of grey levels; None for latents, which have none.
        classes: names of the labels; None if there are none, or networks do not get the classes.
        channels, size: C and S of one image or latent.
        array: "images" or "latents".
        facts: the attributes written with the arrays.
    """

    path: Path
    name: str
    levels: int | None
    classes: list[str] | None
    channels: int
    size: int
    array: str
    facts: dict[str, Any] = field(repr=False)

    @property
    def grey_levels(self) -> int:
        """`levels` of images. Raises TypeError for latents, which have none."""
        if self.levels is None:
            raise TypeError(f"{self.path} holds latents, which have no grey levels")
        return self.levels

    @classmethod
    def open(cls, path: Path) -> ImageSet:
        """Open a set and check that its files are there. Raises MissingError or DamageError."""
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise MissingError(
                "An image set must be a directory with a zarr.json", str(path), "Run the data stage first."
            )
        import zarr

        with reading(f"image set {path}, zarr.json", _REMEDY):
            facts: dict[str, Any] = dict(zarr.open_group(str(path), mode="r").attrs)
            if facts.pop("digest", None) != json_digest(facts):
                raise DamageError(f"image set {path}, zarr.json", "its attributes were changed", _REMEDY)
            if facts["format"] != FORMAT:
                raise DamageError(f"image set {path}", f"format {facts['format']}, we read {FORMAT}", _REMEDY)
            for file, (size, digest) in facts["files"].items():
                _check(path, file, size, digest if file.endswith("zarr.json") else None)
        array = "latents" if "train/latents/zarr.json" in facts["files"] else "images"
        return cls._view(path, facts, array, facts["conditional"])

    @classmethod
    def _view(cls, path: Path, facts: dict[str, Any], array: str, labelled: bool) -> ImageSet:
        import zarr

        with reading(f"image set {path}, train/{array}", _REMEDY):
            _, channels, size, _ = zarr.open_array(str(path / f"train/{array}"), mode="r").shape
            levels = facts["levels"] if array == "images" else None
            return cls(
                path, facts["name"], levels, facts["classes"] if labelled else None, channels, size, array, facts
            )

    @cached_property
    def originals(self) -> ImageSet:
        """The images themselves with all their classes: what scores are measured against and pictures show."""
        return self._view(self.path, self.facts, "images", labelled=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image or latent."""
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
        for file, (size, digest) in self.facts["files"].items():
            if file.startswith((f"{split}/{self.array}/", f"{split}/labels/", f"{split}/zarr.json")):
                _check(self.path, file, size, digest)
        what = f"image set {self.path}, {split}"
        with reading(what, _REMEDY):
            images: np.ndarray = np.asarray(zarr.open_array(str(self.path / split / self.array), mode="r")[:])
            labelled = self.classes is not None
            labels: np.ndarray | None = None
            if labelled:
                labels = np.asarray(zarr.open_array(str(self.path / split / "labels"), mode="r")[:])
        try:
            if self.levels is None:
                count = len(images) if labels is None else len(labels)
                require_latents(self.name, {split: images}, {split: count})
                labels = None if labels is None else np.tile(labels, len(images) // count)
            else:
                require_images(self.name, {split: Split(images, labels)}, self.levels, self.classes)
        except DataError as error:
            raise DamageError(what, str(error), _REMEDY) from error
        return Split(images, labels)


def _check(path: Path, file: str, size: int, digest: str | None) -> None:
    """Raise DamageError unless `file` has its size and, if given, its SHA-256."""
    flaw = None
    if not (path / file).is_file():
        flaw = "is missing"
    elif (actual := (path / file).stat().st_size) != size:
        flaw = f"has {actual} bytes instead of {size}"
    elif digest and sha256_file(path / file) != digest:
        flaw = "its bytes are not those written (SHA-256)"
    if flaw:
        raise DamageError(f"image set {path}, {file}", flaw, _REMEDY)
