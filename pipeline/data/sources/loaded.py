"""What a loader returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from storage.imageset import Split


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
