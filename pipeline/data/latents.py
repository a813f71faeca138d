"""Encode a data set by an autoencoder, piece by piece: a crash costs one piece."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from pipeline.data.autoencoder import Autoencoder, batch
from pipeline.data.examples import Examples
from pipeline.data.sources import LoadedData
from pipeline.runtime.job import Job
from storage.atomic import write_bytes, write_text

LATENTS, RECORD = "latents.npy", "latents.txt"
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
    shape, total = autoencoder.space.latent_shape(channels, size), len(train) + len(test)
    pieces = _Pieces(job.work, (total, *shape))
    done = pieces.rows
    for rows in torch.arange(done, total).split(batch(size)):
        of_train, of_test = rows[rows < len(train)], rows[rows >= len(train)] - len(train)
        with job.timings.measure("latents", len(rows)):
            x = torch.cat([train.pixels(of_train), test.pixels(of_test)])
            pieces.append(autoencoder.encode(x).cpu().numpy())
        done += len(rows)
        job.saved(done, total, "latents")
        job.progress(done, total, "latents")
        job.pause_point()
    latents = np.load(pieces.path, mmap_mode="r")
    mean, spread = float(latents.mean(dtype=np.float64)), float(latents.std(dtype=np.float64))
    log.info("latents: mean %.3f, standard deviation %.3f", mean, spread)
    if not USUAL_STD[0] < spread < USUAL_STD[1]:
        log.warning(
            "data: latents have a standard deviation of %.3g and noise has 1: check scaling_factor in the "
            "autoencoder's config.json.",
            spread,
        )
    return latents[: len(train)], latents[len(train) :]


class _Pieces:
    """latents.npy, written piece by piece, and a line for each piece with its rows and its SHA-256.

    Pieces that are as they were written stay. They are written, not mapped: on a full disk a store to a mapped page
    kills the process.
    """

    def __init__(self, work: Path, shape: tuple[int, ...]) -> None:
        self.path, self._record = work / LATENTS, work / RECORD
        header = io.BytesIO()
        facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        self._header, self._row = header.getvalue(), 4 * math.prod(shape[1:])
        kept = self._intact()
        self.rows = sum(rows for rows, _ in kept)
        write_text(self._record, "".join(f"{rows} {digest}\n" for rows, digest in kept))
        if not kept:
            write_bytes(self.path, self._header)

    def append(self, latents: np.ndarray) -> None:
        """The next rows, float32."""
        data = latents.astype("<f4", copy=False).tobytes()
        with open(self.path, "r+b") as file:
            file.seek(len(self._header) + self.rows * self._row)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with open(self._record, "a") as record:
            record.write(f"{len(latents)} {hashlib.sha256(data).hexdigest()}\n")
        self.rows += len(latents)

    def _intact(self) -> list[tuple[int, str]]:
        """Rows and digest of each piece, up to the first that is not as it was written."""
        kept: list[tuple[int, str]] = []
        with suppress(OSError, ValueError), open(self.path, "rb") as file:
            if file.read(len(self._header)) != self._header:
                return []
            for line in self._record.read_text().splitlines():
                rows, digest = line.split()
                if hashlib.sha256(file.read(int(rows) * self._row)).hexdigest() != digest:
                    break
                kept.append((int(rows), digest))
        return kept
