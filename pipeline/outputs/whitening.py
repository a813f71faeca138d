"""The whitening of a bank in its artifact: a file for each class."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline.couplings import Moments, Standard, Whitening, check_whitening
from pipeline.data.examples import Examples
from pipeline.outputs.banks import ENCODE_BATCH, sigma_draws
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.errors import DamageError

WHITENING = "whitening"
FEWEST = 4  # noises of a class for each of their numbers: of fewer, the covariance is half chance


def fit_whitening(
    job: Job, examples: Examples, draws: int, encode: Callable[[Tensor], Tensor], device: torch.device
) -> Whitening:
    """Measure each class's noise on every image and `whitening_draws` of the draws, and write its whitening.

    `encode` takes flat bank indices (n,) to noises (n, C, H, W). A class that has its file is not measured again; ranks
    share the classes, so that the bytes are those of one rank.

    Raises:
        InputError: the covariances are too large to compute with.
    """
    count, dims = len(examples), math.prod(examples.shape)
    every = torch.arange(count)
    classes = examples.classes(every)
    classes = torch.zeros(count, dtype=torch.int64) if classes is None else classes
    labels = range(int(classes.max()) + 1)
    check_whitening(len(labels), dims)
    used, done = whitening_draws(draws, count, dims, len(labels)), 0
    for label in ranks.mine(labels):
        rows = every[classes == label]
        if not _file(job.out, label).exists():
            moments = Moments(dims)
            indices = (torch.arange(used)[:, None] * count + rows).flatten()
            with job.timings.measure("whitening", len(indices) * ranks.world()):
                for part in indices.split(ENCODE_BATCH):
                    moments.add(encode(part))
                    job.pause_point()
                mean, matrix = moments.whitening()
            write_bytes(_file(job.out, label), save({"mean": mean, "matrix": matrix}))
        done += used * len(rows) * ranks.world()
        job.progress(min(done, used * count), used * count, "images measured for whitening")
    ranks.barrier()
    return _read(job.out, len(labels), device)


def whitening_draws(draws: int, rows: int, dims: int, classes: int) -> int:
    """Draws of each image that the covariances of noises of `dims` numbers are measured on, of `rows` images."""
    return min(draws, max(sigma_draws(draws, rows, dims), math.ceil(FEWEST * dims * classes / rows)))


def too_few(examples: Examples, draws: int) -> tuple[str, ...]:
    """A warning where a class has too few noises for its covariance."""
    count, dims = len(examples), math.prod(examples.shape)
    classes = examples.classes(torch.arange(count))
    sizes = torch.tensor([count]) if classes is None else classes.unique(return_counts=True)[1]
    fewest = int(sizes.min()) * whitening_draws(draws, count, dims, len(sizes))
    if fewest >= FEWEST * dims:
        return ()
    return (
        f"A class is whitened by {fewest:,} noises of {dims:,} numbers; {FEWEST * dims:,} are enough. Its noise ends "
        "up smaller than N(0, I): draw more for each image (bank.draws_per_image), or leave bank.whiten out.",
    )


def standard_of(bank: Artifact, device: torch.device) -> Standard:
    """How a bank stage standardised its noise, for noise on `device`.

    Raises:
        DamageError: its whitening cannot be read.
    """
    if not bank.metrics.get("whitened"):
        return Standard(bank.metrics["sigma_f"])
    folder = bank.path(WHITENING)
    return Standard(bank.metrics["sigma_f"], _read(folder.parent, len(list(folder.iterdir())), device))


def _file(folder: Path, label: int) -> Path:
    return folder / WHITENING / f"{label:06d}.safetensors"


def _read(folder: Path, classes: int, device: torch.device) -> Whitening:
    try:
        parts = [load(_file(folder, label).read_bytes()) for label in range(classes)]
        return Whitening(*(torch.stack([part[name] for part in parts]).to(device) for name in ("mean", "matrix")))
    except Exception as error:
        raise DamageError(
            str(folder / WHITENING), f"it cannot be read: {error}", "Run with --force bank to compute it again"
        ) from None
