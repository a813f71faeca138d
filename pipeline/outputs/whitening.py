"""The whitening of a bank in its artifact: a file for each class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.couplings import ClassMoments, Standard, Whitening, check_whitening
from pipeline.data.examples import Examples
from pipeline.outputs.banks import ENCODE_BATCH, sigma_draws
from pipeline.outputs.tensorfile import write_tensors
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.artifact import Artifact
from storage.errors import DamageError

WHITENING = "whitening"
Part = tuple[Tensor, Tensor]  # mean and matrix of a class
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
    classes = _classes(examples)
    labels = range(int(classes.max()) + 1)
    check_whitening(len(labels), dims)
    used, done = whitening_draws(draws, count, dims, len(labels)), 0
    parts = {}
    for label in ranks.mine(labels):
        rows = (classes == label).nonzero().flatten()
        part = _intact(_file(job.out, label))
        if part is None:
            moments = ClassMoments(dims)
            indices = (torch.arange(used)[:, None] * count + rows).flatten()
            with job.timings.measure("whitening", len(indices) * ranks.world()):
                for some in indices.split(ENCODE_BATCH):
                    moments.add(encode(some))
                    job.pause_point()
                part = mean, matrix = moments.whitening()
            write_tensors(_file(job.out, label), {"mean": mean, "matrix": matrix}, {"sha256": _digest(part)})
        parts[label] = part
        done += used * len(rows) * ranks.world()
        job.progress(min(done, used * count), used * count, "images measured for whitening")
    everything = {label: part for own in ranks.gathered(parts) for label, part in own.items()}
    for label in labels:
        _file(job.out, label).stat()  # a file that vanished is missed here, and not by a later stage
    return _stacked([everything[label] for label in labels], device)


def whitening_draws(draws: int, rows: int, dims: int, classes: int) -> int:
    """Draws of each image that the covariances of noises of `dims` numbers are measured on, of `rows` images."""
    return min(draws, max(sigma_draws(draws, rows, dims), math.ceil(FEWEST * dims * classes / rows)))


def too_few(examples: Examples, draws: int) -> tuple[str, ...]:
    """A warning where a class has too few noises for its covariance."""
    count, dims = len(examples), math.prod(examples.shape)
    sizes = _classes(examples).bincount()
    fewest = int(sizes[sizes > 0].min()) * whitening_draws(draws, count, dims, len(sizes))
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
    parts = [_intact(file) for file in sorted(folder.iterdir())]
    intact = [part for part in parts if part is not None]
    if len(intact) < len(parts):
        raise DamageError(str(folder), "a file cannot be read", "Run with --force bank to compute it again")
    return Standard(bank.metrics["sigma_f"], _stacked(intact, device))


def _classes(examples: Examples) -> Tensor:
    """The class of each image, (N,) int64; 0 where there are none."""
    classes = examples.classes(torch.arange(len(examples)))
    return torch.zeros(len(examples), dtype=torch.int64) if classes is None else classes


def _file(folder: Path, label: int) -> Path:
    return folder / WHITENING / f"{label:06d}.safetensors"


def _digest(part: Part) -> str:
    """SHA-256 of the numbers."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in part)).hexdigest()


def _intact(file: Path) -> Part | None:
    """Mean and matrix of a class; None where they are not there, or not as they were written."""
    try:
        with safe_open(file, "pt") as opened:
            part = opened.get_tensor("mean"), opened.get_tensor("matrix")
            digest = opened.metadata()["sha256"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return part if _digest(part) == digest else None


def _stacked(parts: Sequence[Part], device: torch.device) -> Whitening:
    mean, matrix = (torch.stack(tensors).to(device) for tensors in zip(*parts, strict=True))
    return Whitening(mean, matrix)
