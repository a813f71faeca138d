"""The whitening of a bank in its artifact: a file for each class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline.couplings import Moments, Standard, Whitening
from pipeline.data.examples import Examples
from pipeline.outputs.banks import ENCODE_BATCH, sigma_draws
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.errors import DamageError

WHITENING = "whitening"


def fit_whitening(
    job: Job, examples: Examples, draws: int, encode: Callable[[Tensor], Tensor], device: torch.device
) -> Whitening:
    """Measure each class's noise on every image and `sigma_draws` of the draws, and write its whitening.

    `encode` takes flat bank indices (n,) to noises (n, C, H, W). A class that has its file is not measured again; ranks
    share the classes, so that the bytes are those of one rank.
    """
    count, dims = len(examples), torch.Size(examples.shape).numel()
    every = torch.arange(count)
    classes = examples.classes(every)
    classes = torch.zeros(count, dtype=torch.int64) if classes is None else classes
    labels, used = range(int(classes.max()) + 1), sigma_draws(draws, count, dims)
    done = 0
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
