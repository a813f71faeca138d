"""A second image set in the place of noise: at t = 1 stands one of its images. Made as the data are."""

from __future__ import annotations

from typing import Literal

from pipeline.examples import Examples
from pipeline.stages.data import IMAGES
from pipeline.stages.data import run as run
from storage.artifact import Artifact
from storage.errors import InputError
from storage.imageset import ImageSet


def open_source(source: Artifact, images: ImageSet) -> ImageSet:
    """The source's images. Raises InputError unless they have the shape of `images`, those to be made."""
    found = ImageSet.open(source.path(IMAGES))
    if found.shape != images.shape:
        raise InputError(f"Images of the source have the shape (C, H, W) of the data's, {images.shape}", found.shape,
                         "Set source.size and data.size alike, and choose sources of as many channels")
    return found


def source_examples(source: Artifact, images: ImageSet, split: Literal["train", "test"]) -> Examples:
    """Rows of one split of the source, with the mirrored copies of its training images if it asks for them.

    Raises InputError as `open_source` does.
    """
    found = open_source(source, images)
    return Examples.of(found, split, flips=split == "train" and source.config["flips"])
