"""What the folders of a set of images mean: train and test, and classes."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from pipeline.data.sources.digest import IMAGES
from storage.errors import InputError

_OTHER = (".gif", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".ppm", ".pgm", ".npy")
_HELD_OUT = {"test", "val", "valid", "validation"}


class Arrangement(NamedTuple):
    """Names of N images, labels (N,) and class names if they have classes, and which test if the folders say so."""

    names: list[str]
    labels: np.ndarray | None
    classes: list[str] | None
    tests: np.ndarray | None  # bool (N,)


def arrange(source: str, names: list[str]) -> Arrangement:
    """Read the folders in the `names` of all files of `source`; what is no image by its name is left out.

    Folders that hold everything are passed over. train/ and test/, if they are all there is then, are the split. The
    next folder names the class: fewer than two of them are no classes. Raises InputError for what has two readings.
    """
    kept = [name for name in names if name.lower().endswith(IMAGES)]
    odd = next((name for name in names if name.lower().endswith(_OTHER)), None)
    if odd or not kept:
        found = odd or (f"{len(names)} other files, first {names[0]}" if names else "no files")
        raise InputError(f"{source} holds images: {', '.join(IMAGES)}", found, "Convert them, or check data.path.")
    paths = [name.split("/") for name in kept]
    while all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    tests = _split(source, kept, paths)
    folders = [path[0 if tests is None else 1 : -1] for path in paths]
    bare = next((name for name, folder in zip(kept, folders, strict=True) if not folder), None)
    inside = next((name for name, folder in zip(kept, folders, strict=True) if folder), None)
    if bare and inside:
        remedy = "Move every image into the folder of its class, or none."
        raise InputError(f"all images of {source} are in class folders, or none is", f"{bare} and {inside}", remedy)
    found_classes = [folder[0] if folder else "" for folder in folders]
    classes = sorted(set(found_classes), key=_natural)
    if len(classes) < 2:
        return Arrangement(kept, None, None, tests)
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[name] for name in found_classes], dtype=np.int64)
    if tests is not None:
        unseen = [classes[i] for i in sorted(set(labels[tests]) - set(labels[~tests]))]
        if unseen:
            raise InputError(f"every class in test/ of {source} is in train/ too", unseen, "Add training images of it.")
    return Arrangement(kept, labels, classes, tests)


def _split(source: str, names: list[str], paths: list[list[str]]) -> np.ndarray | None:
    tops = {path[0] for path in paths if len(path) > 1}
    loose = next((name for name, path in zip(names, paths, strict=True) if len(path) == 1), None)
    if tops == {"train", "test"} and not loose:
        return np.array([path[0] == "test" for path in paths])
    if "train" in tops and tops & _HELD_OUT:
        found = f"{sorted(tops)}" + (f" and {loose}" if loose else "")
        raise InputError(
            f"{source} has the folders train and test and nothing beside them", found, "Rename or move them."
        )
    return None


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts class2 before class10, so that numbered folders get their numbers as labels."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
