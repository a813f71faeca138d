"""The images that the data stage leaves, and what turns a network's samples back into images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pipeline.data.examples import Examples
from pipeline.data.sources.digest import AUTOENCODER as FILES
from storage.artifact import Artifact
from storage.errors import DamageError, InputError, RecipeError
from storage.imageset import ImageSet

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.runtime.job import Job

IMAGES = "images.zarr"
AUTOENCODER = "autoencoder"


def images_of(job: Job) -> ImageSet:
    """The images, or their latents, that a stage works on."""
    return ImageSet.open(job.inputs["data"].path(IMAGES))


def decoder(data: Artifact, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """What makes images of a network's samples (B, C, H, W): nothing, or the data's own autoencoder.

    Images are nominally in [-1, 1]. Raises InputError if the autoencoder's package is missing, DamageError if its
    files cannot be read.
    """
    folder = data.path(AUTOENCODER)
    if not folder.is_dir():
        return _as_it_is
    from pipeline.data.autoencoder import Autoencoder, require_library

    require_library()
    try:
        return Autoencoder.load(folder, device).decode
    except InputError as error:
        raise DamageError(
            str(folder), f"the autoencoder cannot be read: {error.value}", "Run with --force data to write it again"
        ) from error


def autoencoder_of(data: Artifact) -> dict[str, str]:
    """A protocol's fields of the decoding of samples; empty where samples are not decoded."""
    if not data.path(AUTOENCODER).is_dir():
        return {}
    return {"autoencoder": data.digest(f"{AUTOENCODER}/{FILES[1]}")[:12]}


def _as_it_is(x: Tensor) -> Tensor:
    return x


def open_source(source: Artifact, images: ImageSet) -> ImageSet:
    """The source's images. Raises RecipeError unless they have the shape of `images`."""
    source_images = ImageSet.open(source.path(IMAGES))
    if source_images.shape != images.shape:
        raise RecipeError(
            f"Images of the source have the shape (C, H, W) of the data's, {images.shape}",
            source_images.shape,
            "Set source.size and data.size alike, and choose sources of as many channels",
        )
    return source_images


def source_examples(source: Artifact | None, images: ImageSet, split: Literal["train", "test"]) -> Examples | None:
    """Rows of one split of the source, with the mirrored copies of its training images if it asks for them; None where
    there is no source.

    Raises RecipeError as `open_source` does.
    """
    if source is None:
        return None
    source_images = open_source(source, images)
    return Examples.of(source_images, split, flips=split == "train" and source.config["flips"])
