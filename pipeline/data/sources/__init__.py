"""Images from where they are to train and test arrays. One module for each format; importing this reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from pipeline.data.sources.digest import source_digest
from storage.imageset import Split

__all__ = ["DataConfig", "LoadedData", "load", "source_digest"]

MODULES = {
    "digits": "digits",
    "mnist": "idx",
    "fashion-mnist": "idx",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "images": "images",
}


class DataConfig(Protocol):
    """What the loaders read of the recipe's data section."""

    source: str  # a key of `MODULES`
    path: Path | None
    checksum: str | None  # sha256:...
    size: int | None  # pixels
    test_fraction: float
    limit: int | None
    classes: tuple[str, ...] | None  # names of classes
    small_classes: str  # refuse or drop
    layout: str  # auto, classes, split or flat
    names_encoding: str | None
    background: str  # a colour
    autoencoder: Path | None
    seed: int


@dataclass(frozen=True)
class LoadedData:
    """What `storage.imageset.write_imageset` takes: pixel values are 0 to levels - 1.

    `left_out` are files of the source that are not among the images, names by kind. `notes` say what was assumed.
    """

    name: str
    train: Split
    test: Split
    levels: int
    classes: list[str] | None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def chosen(config: DataConfig, train: Split, test: Split, classes: list[str], levels: int = 256) -> LoadedData:
    """Apply `config` to a data set with classes: `classes`, `limit`, `small_classes` and `size`."""
    from pipeline.data.sources.shrink import shrink
    from pipeline.data.sources.split import select
    from pipeline.data.sources.text import listed

    some = select(config, config.source, train.labels, test.labels, classes)
    splits = (some.split(*split, rows) for split, rows in ((train, some.train), (test, some.test)))
    train, test = (Split(shrink(split.images, config.size), split.labels) for split in splits)
    notes = [f"{len(some.dropped)} classes are dropped as too small: {listed(some.dropped)}"] if some.dropped else []
    return LoadedData(config.source, train, test, levels, some.named(classes), notes=notes)


def load(config: DataConfig, cache_dir: Path | None = None) -> LoadedData:
    """Read the source that `config` names.

    Downloads go to the user's cache folder, and digests are computed each time; a `cache_dir` holds both, in
    place of that folder.

    The result follows from the source's content and the config alone. Raises DataError for anything wrong with the
    source: absent, damaged, of another checksum, not images, too few of them, unsafe, of two readings. Raises
    DownloadError where it cannot be fetched, RecipeError for a setting that does not fit it.
    """
    return import_module(f"pipeline.data.sources.{MODULES[config.source]}").load(config, cache_dir)
