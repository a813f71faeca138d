"""What a loader reads of the recipe, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storage.imageset import Split


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
