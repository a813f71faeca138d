"""Images into one image set: grey levels, labels, classes, train and test split; latents of them, if asked for.

With an autoencoder the artifact holds images, their latents, and the autoencoder itself, so that no later stage needs
anything from outside. Networks are trained on the latents as if they were images; whatever looks at samples decodes
them first, see `decoder`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.configs import Data
from pipeline.data import load
from pipeline.data.digest import AUTOENCODER as FILES
from pipeline.job import Job
from pipeline.results import DataResult
from storage.artifact import Artifact
from storage.atomic import replacing
from storage.errors import DamageError, InputError
from storage.imageset import ImageSet, write_imageset

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.data.autoencoder import Autoencoder

IMAGES = "images.zarr"
AUTOENCODER = "autoencoder"


def run(job: Job) -> DataResult:
    config: Data = job.config
    autoencoder = None if config.autoencoder is None else _open(job, config.autoencoder)
    loaded = load(config)
    latents = None
    if autoencoder is not None:
        from pipeline.data.latents import encode_all

        latents = encode_all(job, autoencoder, loaded, config.flips)
    path = job.out / IMAGES
    write_imageset(path, loaded.name, loaded.train, loaded.test, levels=loaded.levels, classes=loaded.classes,
                   latents=latents, conditional=config.labels)
    images = ImageSet.open(path)
    train, test = len(loaded.train.images), len(loaded.test.images)
    job.progress(train + test, train + test, "images")
    return DataResult(name=images.name, train=train, test=test, channels=images.channels, size=images.size,
                      levels=loaded.levels, classes=tuple(images.classes) if images.classes else None,
                      pixels=None if latents is None else loaded.train.images.shape[1:3])


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
        raise DamageError(str(folder), f"the autoencoder cannot be read: {error.value}",
                          "Run with --force data to make it anew") from error


def autoencoder_of(data: Artifact) -> dict[str, str]:
    """What a protocol says of how samples were decoded; nothing where they were not."""
    if not data.path(AUTOENCODER).is_dir():
        return {}
    return {"autoencoder": data.digest(f"{AUTOENCODER}/{FILES[1]}")[:12]}


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _open(job: Job, folder: Path) -> Autoencoder:
    """The autoencoder, after a copy of its files went into the artifact."""
    from pipeline.data.autoencoder import Autoencoder
    from pipeline.runtime import prepare

    for name in FILES:
        with replacing(job.out / AUTOENCODER / name) as aside:
            shutil.copyfile(folder / name, aside)
    return Autoencoder.load(job.out / AUTOENCODER, prepare(job.compute))
