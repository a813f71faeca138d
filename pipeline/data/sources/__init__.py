"""Images from where they are to train and test arrays. One module for each source; importing this reads nothing yet."""

from __future__ import annotations

from dataclasses import dataclass
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
    autoencoder: Path | None
    seed: int


@dataclass(frozen=True)
class LoadedData:
    """What `storage.imageset.write_imageset` takes: pixel values are 0 to levels - 1."""

    name: str
    train: Split
    test: Split
    levels: int
    classes: list[str] | None


def load(config: DataConfig, cache_dir: Path | None = None) -> LoadedData:
    """Read the source that `config` names.

    Downloads are kept in the user's cache folder, and digests are computed each time; a `cache_dir` keeps both, in
    place of that folder.

    The result follows from the source's content and the config alone. Raises InputError for anything wrong with the
    source: absent, damaged, of another checksum, not images, too few of them, unsafe.
    """
    return import_module(f"pipeline.data.sources.{MODULES[config.source]}").load(config, cache_dir)
