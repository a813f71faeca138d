"""The data: images in one image set, and their latents if there is an autoencoder."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources import load
from pipeline.data.sources.digest import AUTOENCODER as FILES
from pipeline.data.sources.members import HIDDEN
from pipeline.data.sources.text import SHOWN, listed, shown
from pipeline.outputs.images import AUTOENCODER, IMAGES
from pipeline.outputs.results import DataResult, LeftOut
from pipeline.recipe.sections import Data
from pipeline.runtime.job import Job
from storage.atomic import replacing
from storage.imageset import ImageSet, write_imageset

if TYPE_CHECKING:
    from pipeline.data.autoencoder import Autoencoder

log = logging.getLogger(__name__)


def run(job: Job[Data]) -> DataResult:
    """Read the images of a source and write them as one image set.

    Inputs: files outside of the store, or scikit-learn's digits.

    Leaves: images.zarr (grey levels (N, C, H, W) uint8, labels, classes, train and test split). With `data.autoencoder`
    also the latents and autoencoder/, so that no later stage reads anything from outside.
    Networks are trained on latents as if they were images; see `pipeline.outputs.images.decoder` for the way back.
    """
    config = job.config
    autoencoder = None if config.autoencoder is None else _open(job, config.autoencoder)
    if autoencoder is not None and config.size is not None:
        autoencoder.space.latent_shape(autoencoder.space.channels, config.size)  # before the images are decoded
    loaded = load(config)
    for note in loaded.notes:
        log.warning("data: %s", note)
    for kind, names in loaded.left_out.items():
        level = logging.INFO if kind == HIDDEN else logging.WARNING
        log.log(level, "data: left out %d of kind %s: %s", len(names), kind, listed(names))
    latents = None
    if autoencoder is not None:
        from pipeline.data.latents import encode_all

        latents = encode_all(job, autoencoder, loaded, config.flips)
    path = job.out / IMAGES
    write_imageset(
        path,
        loaded.name,
        loaded.train,
        loaded.test,
        levels=loaded.levels,
        classes=loaded.classes,
        latents=latents,
        conditional=config.labels,
    )
    images = ImageSet.open(path)
    train, test = len(loaded.train.images), len(loaded.test.images)
    job.progress(train + test, train + test, "images")
    return DataResult(
        name=images.name,
        train=train,
        test=test,
        channels=images.channels,
        size=images.size,
        levels=loaded.levels,
        classes=tuple(images.classes) if images.classes else None,
        pixels=None if latents is None else loaded.train.images.shape[1:3],
        left_out=tuple(
            LeftOut(kind=shown(kind), count=len(names), names=tuple(map(shown, names[:SHOWN])))
            for kind, names in loaded.left_out.items()
        ),
        notes=tuple(loaded.notes),
    )


def _open(job: Job, folder: Path) -> Autoencoder:
    """The autoencoder, from a copy of its files in the artifact."""
    from pipeline.data.autoencoder import Autoencoder
    from pipeline.runtime.device import prepare

    for name in FILES:
        with replacing(job.out / AUTOENCODER / name) as aside:
            shutil.copyfile(folder / name, aside)
    return Autoencoder.load(job.out / AUTOENCODER, prepare(job.compute))
