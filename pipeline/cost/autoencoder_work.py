"""The counted work of an autoencoder on one image: to its latent and back."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.cost.flops import Work, counted
from pipeline.data.autoencoder import batch, require_library
from pipeline.data.latent_space import LatentSpace, read_config, unreadable
from storage.checksummed_json import json_digest


def network_name(folder: Path) -> str:
    """A name for all autoencoders of one architecture. Raises DataError if the folder holds something else."""
    return json_digest({name: value for name, value in read_config(folder).items() if name[0] != "_"})[:16]


@lru_cache(maxsize=8)
def coding_work(folder: Path, size: int, way: Literal["encode", "decode"]) -> Work:
    """Of one image of this side in pixels, in batches as they are encoded and decoded.

    Raises UsageError if diffusers is not installed, DataError if the folder holds something else.
    """
    require_library()
    from diffusers import AutoencoderKL

    config, images = read_config(folder), batch(size)
    try:
        space = LatentSpace.of(config)
        with FakeTensorMode(), torch.no_grad():
            network = AutoencoderKL.from_config(config).eval()
            shape = (space.channels, size, size) if way == "encode" else space.latent_shape(space.channels, size)
            return counted(partial(getattr(network, way), torch.empty(images, *shape))) * (1 / images)
    except (KeyError, TypeError, ValueError) as error:  # of another version of diffusers, or no autoencoder at all
        raise unreadable(folder, error) from error
