"""Your own images: a folder, zip or tar (gz, bz2, xz) of files that Pillow decodes, in class folders or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.data.sources import remarks
from pipeline.data.sources.arrange import Arrangement, arrange
from pipeline.data.sources.decode import background, decode_all
from pipeline.data.sources.digest import images_digest, is_shard
from pipeline.data.sources.held_out import arrange_with_list
from pipeline.data.sources.kinds import extension_of
from pipeline.data.sources.loaded import LoadedData
from pipeline.data.sources.members import Members, refuse_stores
from pipeline.data.sources.opening import open_members
from pipeline.data.sources.split import select, stratified
from pipeline.data.sources.text import listed, shown
from pipeline.data.sources.webdataset import CLASS, arrange_samples, open_samples, with_class_files
from pipeline.recipe.sections import Data
from storage.errors import DataError, RecipeError
from storage.imageset import Split
from storage.required import required

UNLISTED = "image neither for training nor in data.test_list"  # kinds of files that are left out
SMALL_CLASS = "image of a class without training or test images"


def load(config: Data, cache_dir: Path | None) -> LoadedData:
    """Images (N, 1, S, S) if all are grey, else (N, 3, S, S), in the order of their names.

    Folders for training and tests are the split, else `test_fraction` and `seed` make one. With `size` images are cut
    to their central square and resized by Lanczos' filter; without, all must be squares of one size. Transparent pixels
    are composited over `background`. Files that are no images, by name and by content, are left out and listed.
    """
    if config.path is None:
        raise RecipeError("data.path must be set for the source 'images'", None, "Give a folder or archive.")
    path = Path(config.path)
    source = shown(path.absolute().name)
    refuse_stores(path.absolute())
    images_digest(config, cache_dir)  # verifies the checksum
    open_source = open_samples if config.layout == "webdataset" else open_members
    members = open_source(path, config.names_encoding)
    samples = config.layout == "webdataset"
    left_out = files_left_out(members, lambda name: name == config.test_list or (samples and name.endswith(CLASS)))
    if not members.images:
        value = "; ".join(f"{kind}: {listed(names)}" for kind, names in left_out.items()) or "no files"
        remedy = "Convert them to PNG or JPEG, or check data.path."
        if any(is_shard(name) for names in left_out.values() for name in names):
            remedy = "If these tars hold the images, set data.layout to webdataset."
        raise DataError(f"{source} must hold images", value, remedy)
    folders = _arranged(members, source, config)
    if folders.left_out:
        left_out[UNLISTED] = list(folders.left_out)
    labels = np.zeros(len(folders.names), np.int64) if folders.labels is None else folders.labels
    if folders.tests is None:
        train, test = stratified(labels, config.test_fraction, config.seed)
    else:
        train, test = np.flatnonzero(~folders.tests), np.flatnonzero(folders.tests)
    some = select(config, source, labels[train], labels[test], folders.classes)
    rows = np.concatenate([train[some.train], test[some.test]])
    if some.dropped:
        names_of = required(folders.classes, "classes")
        dropped = np.isin(labels, [names_of.index(name) for name in some.dropped])
        left_out[SMALL_CLASS] = [folders.names[row] for row in np.flatnonzero(dropped)]
    names = [folders.names[row] for row in rows]
    decoded = decode_all(members, names, config.size, background(config.background))
    trains = np.arange(len(rows)) < len(some.train)
    splits = []
    for part in (trains, ~trains):
        split = some.split(decoded.images, labels[rows], np.flatnonzero(part))
        splits.append(split if folders.classes else Split(split.images, None))
    classes = some.named(folders.classes) if folders.classes else None
    notes = [
        *members.notes,
        *folders.notes,
        *remarks.of_folders(path, members, folders.names, folders.classes or ()),
        *remarks.of_files(decoded),
        *remarks.of_copies(decoded.images, names, labels[rows], trains),
    ]
    name = path.name.split(".")[0] or "images"
    return LoadedData(name, splits[0], splits[1], levels=256, classes=classes, left_out=left_out, notes=notes)


def _arranged(members: Members, source: str, config: Data) -> Arrangement:
    """Classes and split, from wherever the recipe says they are. Raises DataError for two readings."""
    if config.layout == "webdataset":
        return arrange_samples(members)
    if config.test_list is not None:
        return arrange_with_list(members, config.test_list, config.layout)
    if config.layout == "auto" and (described := with_class_files(members)):
        raise DataError(
            f"Classes of {source} must be in {CLASS} files or in folders",
            f"{len(described)} of {len(members.images)} images have a file {CLASS}: {listed(described)}",
            "For classes from these files, set data.layout to webdataset; from folders, to classes or split; for none, "
            "to flat.",
        )
    return arrange(source, members.images, config.layout)


def files_left_out(members: Members, used: Callable[[str], bool] = lambda name: False) -> dict[str, list[str]]:
    """Names of the files that are neither images nor `used` otherwise, by kind, the largest kind first."""
    kinds = {kind: list(names) for kind, names in members.ignored.items()}
    images = set(members.images)
    for name in sorted(members.places):
        if name not in images and not used(name):
            kinds.setdefault(extension_of(name) or "no extension", []).append(name)
    counts = Counter({kind: len(names) for kind, names in kinds.items()})
    return {kind: kinds[kind] for kind, _ in counts.most_common()}
