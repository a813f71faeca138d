"""Notes on a folder of images that can be used as it is, for the log, the manifest and the report."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.data.sources.decode import Decoded
from pipeline.data.sources.kinds import BY_EXTENSION, SAME, extension_of
from pipeline.data.sources.members import Members, is_hidden
from pipeline.data.sources.text import listed
from storage.store import is_store

MISNAMED = "images of another format than their names say"
ALIKE = "classes whose names differ in case or spaces alone"
EMPTY = "folders without an image, which are no classes"
LEAKED = "test images with the pixels of a training image"
TORN = "images with the pixels of one of another class"


def of_files(decoded: Decoded) -> list[str]:
    """Notes on images whose content is not what their names say, and on what decoding changed."""
    wrong = []
    for name, actual in decoded.formats.items():
        named = BY_EXTENSION.get(extension_of(name))
        if named and SAME.get(named, named) != SAME.get(actual, actual):
            wrong.append(f"{name} ({actual})")
    return _notes({MISNAMED: wrong, **decoded.remarks})


def of_folders(path: Path, members: Members, names: Collection[str], classes: Sequence[str]) -> list[str]:
    """Notes on folders next to those of images that have none, and on classes whose names look alike.

    Args:
        path: of the source, a folder or archive.
        members: its files.
        names: of all images.
        classes: of the images; none for images without classes.
    """
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    groups = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    return _notes({ALIKE: groups, EMPTY: _empty_folders(path, members, names)})


def of_copies(images: np.ndarray, names: Sequence[str], labels: np.ndarray, trains: np.ndarray) -> list[str]:
    """Notes on test images that are training images too, and on images that are in several classes.

    Args:
        images: (N, C, S, S) uint8.
        names: of the images.
        labels: (N,), all alike where there are no classes.
        trains: (N,) bool, whether an image is for training.
    """
    alike: dict[bytes, list[int]] = {}
    for row, image in enumerate(images):
        alike.setdefault(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest(), []).append(row)
    groups = [rows for rows in alike.values() if len(rows) > 1]
    leaked = [names[row] for rows in groups if trains[rows].any() for row in rows if not trains[row]]
    torn = [
        f"{names[rows[0]]} and {names[row]}" for rows in groups for row in rows[1:] if labels[row] != labels[rows[0]]
    ]
    return _notes({LEAKED: leaked, TORN: torn})


def _notes(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{remark} ({len(names)}): {listed(names)}" for remark, names in remarks.items() if names]


def _empty_folders(path: Path, members: Members, names: Collection[str]) -> list[str]:
    """Folders without an image that lie next to folders of images."""
    places = [PurePosixPath(name).parents for name in names]
    full = {folder for parents in places for folder in parents}
    above = {parents[1] for parents in places if len(parents) > 1}
    if path.is_dir():
        on_disk = [folder for folder in above if (path / folder).is_dir()]  # others are tars, with folders in them
        entries = ((folder / entry.name, entry) for folder in on_disk for entry in os.scandir(path / folder))
        folders = {name for name, entry in entries if entry.is_dir() and not is_store(Path(entry.path))}
    else:
        folders = set(map(PurePosixPath, members.folders))
        folders |= {folder for name in members.places for folder in PurePosixPath(name).parents}
    empty = [folder for folder in folders - full if folder.parent in above and not is_hidden(folder.name)]
    return sorted(map(str, empty))
