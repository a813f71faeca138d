"""Images whose class is in a file of the same key, `key.jpg` and `key.cls`, as tars for WebDataset hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.sources.archives import open_tar
from pipeline.data.sources.arrange import Arrangement, natural, roles_of
from pipeline.data.sources.digest import is_shard
from pipeline.data.sources.kinds import extension_of
from pipeline.data.sources.members import Members, refusing, walk
from pipeline.data.sources.opening import open_members
from pipeline.data.sources.text import listed, normal, shown
from storage.errors import DataError

CLASS = ".cls"


def key_of(name: str) -> str:
    """The name up to the first dot after its folders."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def open_samples(path: Path, encoding: str | None) -> Members:
    """The files of all tars in a folder, each tar standing for a folder of its name, and other files left out; of any
    other source as `open_members` gives them."""
    ignored: dict[str, list[str]] = {}
    shards: list[str] = []
    for name, _ in (
        walk(path, skipped=lambda kind, name: ignored.setdefault(kind, []).append(name)) if path.is_dir() else ()
    ):
        if is_shard(name):
            shards.append(name)
        else:
            ignored.setdefault(extension_of(name) or "no extension", []).append(name)
    if not shards:
        return open_members(path, encoding)
    tars: list[Members] = []

    def read(chosen: dict[Any, list[str]]) -> Iterator[tuple[str, bytes]]:
        for number, tar in enumerate(tars):
            inside = {place: names for (of, place), names in chosen.items() if of == number}
            names = {name.removeprefix(f"{shards[number]}/"): name for here in inside.values() for name in here}
            yield from ((names[name], content) for name, content in tar.read(set(names)))

    members = Members(shown(path.absolute().name), read, ignored=ignored)
    for number, shard in enumerate(shards):
        with refusing(path / shard):
            tars.append(open_tar(path / shard, encoding))
        images = set(tars[-1].images)
        for name, place in tars[-1].places.items():
            members.places[f"{shard}/{name}"] = number, place
            if name in images:
                members.images.append(f"{shard}/{name}")
        members.notes += tars[-1].notes
        for kind, names in tars[-1].ignored.items():
            members.ignored.setdefault(kind, []).extend(f"{shard}/{name}" for name in names)
    return members


def with_class_files(members: Members) -> list[str]:
    """Images next to which there is a file of their class."""
    keys = {key_of(name) for name in members.places if name.endswith(CLASS)}
    return [name for name in members.images if key_of(name) in keys]


def arrange_samples(members: Members) -> Arrangement:
    """Classes from the `.cls` files, whose text is the name of a class; the split from names of tars and folders.

    Raises:
        DataError: an image without a class, a key of several images, or tars of which only some say whether they test.
    """
    source = members.source
    names = sorted(members.images, key=lambda name: (normal(name), name))
    files = {key_of(name): name for name in members.places if name.endswith(CLASS)}
    without = [name for name in names if key_of(name) not in files]
    if without:
        raise DataError(
            f"Each image of {source} must have a class in a file {CLASS} of its key",
            f"{len(without)} of {len(names)} have none: {listed(without)}",
            "Add the files, or set data.layout to classes or flat.",
        )
    keys = [key_of(name) for name in names]
    several = sorted(key for key, count in Counter(keys).items() if count > 1)
    if several:
        raise DataError(f"A key of {source} must have one image", listed(several), "Remove the others.")
    texts = dict(members.read({files[key] for key in keys}))
    of_images = [_class_in(texts[files[key]], f"{source}/{shown(files[key])}") for key in keys]
    classes = sorted(set(of_images), key=natural)
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[name] for name in of_images], dtype=np.int64)
    return Arrangement(names, labels, classes, _tests(source, names), [])


def _class_in(content: bytes, name: str) -> str:
    """The class in a file of this content. Raises DataError unless it is one line of text."""
    try:
        (line,) = content.decode("utf-8-sig").strip().splitlines()
    except ValueError:
        remedy = "Write the file again, in UTF-8."
        raise DataError(f"{name} must hold the name or number of one class", content[:40], remedy) from None
    return normal(line)


def _tests(source: str, names: list[str]) -> np.ndarray | None:
    """Which images test, None where no folder and no tar says so, or all are for training."""
    folders = sorted({name.rpartition("/")[0] for name in names}, key=natural)
    roles = {folder: roles_of(folder) for folder in folders}
    if not any(roles.values()) or all(role == {"train"} for role in roles.values()):
        return None
    if not all(len(role) == 1 for role in roles.values()) or len(set().union(*roles.values())) < 2:
        raise DataError(
            f"Each tar or folder of {source} must be named as for training or for tests, and some as for each, or none",
            listed(folders),
            "Rename them, for example train-0000.tar and val-0000.tar.",
        )
    return np.array([roles[name.rpartition("/")[0]] == {"test"} for name in names])
