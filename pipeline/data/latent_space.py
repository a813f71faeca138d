"""What an autoencoder's config.json says of its images and latents. Light: planning imports it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.data.sources.digest import AUTOENCODER
from storage.errors import DataError

RULE = "data.autoencoder must hold an AutoencoderKL of diffusers"
REMEDY = "Give another folder, or save it again."


class LatentSpace(NamedTuple):
    """Sizes of an autoencoder's images and latents.

    Attributes:
        channels: of images.
        latent_channels: of latents.
        factor: side of an image divided by the side of its latent.
    """

    channels: int
    latent_channels: int
    factor: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> LatentSpace:
        """From the configuration of an AutoencoderKL."""
        halvings = len(config["block_out_channels"]) - 1
        return cls(config["in_channels"], config["latent_channels"], 2**halvings)

    def latent_shape(self, channels: int, size: int) -> tuple[int, int, int]:
        """(c, s, s) of the latent of an image (C, S, S). Raises DataError for images of another number
        of channels or of a side that `factor` does not divide."""
        if channels != self.channels:
            rule = f"Images for this autoencoder must have {self.channels} channels"
            raise DataError(rule, channels, "Choose another autoencoder.")
        if size % self.factor:
            rule = f"The side of images for this autoencoder must be a multiple of {self.factor} pixels"
            raise DataError(rule, size, "Set data.size.")
        return self.latent_channels, size // self.factor, size // self.factor


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of an AutoencoderKL. Raises DataError if the folder holds something else."""
    try:
        config = json.loads((Path(folder) / AUTOENCODER[0]).read_bytes())
        kind = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, error) from error
    if kind != "AutoencoderKL":
        raise DataError(RULE, f"{folder}: {kind}", REMEDY)
    return config


def unreadable(folder: Path, error: Exception) -> DataError:
    """The error for a folder that raises `error` when it is read."""
    return DataError(RULE, f"{folder}: {type(error).__name__}: {error}", REMEDY)


def latent_space(folder: Path) -> LatentSpace:
    """The sizes of the autoencoder in a folder. Raises DataError if it holds something else."""
    try:
        return LatentSpace.of(read_config(folder))
    except (KeyError, TypeError) as error:
        raise unreadable(folder, error) from error
