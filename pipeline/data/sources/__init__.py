"""Images from where they are to train and test arrays. One module for each format; importing this reads nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources.digest import source_digest
from pipeline.data.sources.loaded import LoadedData

if TYPE_CHECKING:
    from pipeline.recipe.sections import Data

__all__ = ["LoadedData", "load", "source_digest"]

MODULES = {
    "digits": "digits",
    "mnist": "idx",
    "fashion-mnist": "idx",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "images": "images",
}


def load(config: Data, cache_dir: Path | None = None) -> LoadedData:
    """Read the source that `config` names.

    Downloads go to the user's cache folder, and digests are computed each time; a `cache_dir` holds both, in
    place of that folder.

    The result follows from the source's content and the config alone. Raises DataError for anything wrong with the
    source: absent, damaged, of another checksum, not images, too few of them, unsafe, of two readings. Raises
    DownloadError where it cannot be fetched, RecipeError for a setting that does not fit it.
    """
    return import_module(f"pipeline.data.sources.{MODULES[config.source]}").load(config, cache_dir)
