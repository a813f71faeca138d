"""Encode a data set by an autoencoder, piece by piece: a crash costs one piece."""

from __future__ import annotations

import logging

import numpy as np
import torch

from pipeline.data.autoencoder import Autoencoder
from pipeline.data.examples import Examples
from pipeline.data.sources import LoadedData
from pipeline.runtime.job import Job, read_saved
from storage.atomic import fsync_path

LATENTS = "latents.npy"
USUAL_STD = (0.5, 2.0)  # of latents whose scale suits noise of standard deviation 1

log = logging.getLogger(__name__)


def encode_all(job: Job, autoencoder: Autoencoder, loaded: LoadedData, flips: bool) -> tuple[np.ndarray, np.ndarray]:
    """Latents float32 (N or 2 N, c, s, s) of the training images, and of the test images.

    With `flips`, row N + i is that of image i mirrored: the mirror image of a latent is another one. Resumes after
    the last piece of an earlier run of this job. Raises DataError for images that the autoencoder does not take.
    """
    train, test = (
        Examples(loaded.train.images, None, loaded.levels, flips),
        Examples(loaded.test.images, None, loaded.levels),
    )
    channels, size, _ = train.shape
    shape, total = autoencoder.latent_shape(channels, size), len(train) + len(test)
    path, saved = job.work / LATENTS, read_saved(job.work)
    done = saved.done if saved and path.is_file() else 0
    latents = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float32, (total, *shape))
    for rows in torch.arange(done, total).split(autoencoder.batch(size)):
        of_train, of_test = rows[rows < len(train)], rows[rows >= len(train)] - len(train)
        x = torch.cat([train.pixels(of_train), test.pixels(of_test)])
        latents[rows.numpy()] = autoencoder.encode(x).cpu().numpy()
        done += len(rows)
        latents.flush()
        fsync_path(path)
        job.saved(done, total, "latents")
        job.progress(done, total, "latents")
        job.pause_point()
    mean, spread = float(latents.mean(dtype=np.float64)), float(latents.std(dtype=np.float64))
    log.info("latents: mean %.3f, standard deviation %.3f", mean, spread)
    if not USUAL_STD[0] < spread < USUAL_STD[1]:
        log.warning(
            "data: latents have a standard deviation of %.3g and noise has 1: check scaling_factor in the "
            "autoencoder's config.json.",
            spread,
        )
    return latents[: len(train)], latents[len(train) :]
