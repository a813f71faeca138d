"""Waiting times of a training: its data and its checkpoints, as the training loop itself counts them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_sides import LR, NETWORKS, a_job, random_images
from models.unet import CONFIGS, UNetConfig
from pipeline.couplings import Banked, Coupling, Loom, MinibatchOT, SeededNoises
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import LogitNormal
from pipeline.outputs.networks import build
from pipeline.recipe import sections as configs
from pipeline.runtime.device import prepare
from pipeline.runtime.job import ProgressUpdate
from pipeline.training.flow_batches import FlowBatches, blocks_ahead
from pipeline.training.student import train


@dataclass(frozen=True)
class Case:
    """Images of a data set's number and size, and the network and batch of its recipe."""

    name: str
    shape: UNetConfig
    rows: int
    levels: int
    classes: int
    batch: int
    precision: str
    images: int  # of the training that is measured
    checkpoint_seconds: float  # between checkpoints

    def examples(self) -> Examples:
        return random_images(self.rows, self.shape.shape, self.levels, self.classes)


def cases(device: torch.device, quick: bool) -> list[Case]:
    """A digits training, with a checkpoint every five seconds, and one on CIFAR-10's number of images."""
    digits = Case("digits", CONFIGS["digits"], 1437, 17, 10, 128, "float32", 128 * (40 if quick else 160), 5.0)
    cuda = device.type == "cuda"
    steps = (50 if quick else 200) if cuda else 3
    batch = 128 if cuda else 32  # a CPU's step of the recipe's 128 takes a quarter of a minute
    network = "narrow" if quick and not cuda else "cifar10"
    return [digits, Case(network, NETWORKS[network], 50_000, 256, 0, batch, "bfloat16", batch * steps, 60.0)]


def couplings(case: Case) -> dict[str, Callable[[], Coupling]]:
    """The student's data for these names, with noise as its bank: one draw, resident, in float16."""
    shape = case.shape.shape
    return {
        "nfm": lambda: Banked(torch.empty(1, case.rows, *shape, dtype=torch.float16).normal_()),
        "ot": MinibatchOT,
        "loom": lambda: Loom(
            SeededNoises(1, case.rows, shape, 1).in_memory(), journal=blocks_ahead(case.batch, case.batch)
        ),
    }


def shares(case: Case, device: torch.device) -> Iterator[dict[str, Any]]:
    """For each coupling, of the real `fit`: shares of its time; and how fast the data path is by itself."""
    examples = case.examples()
    for name, make in couplings(case).items():
        with tempfile.TemporaryDirectory() as folder:
            yield (
                {"case": case.name, "coupling": name, "batch": case.batch, "precision": case.precision}
                | _fit(case, examples, make(), device, Path(folder))
            )


def _fit(case: Case, examples: Examples, coupling: Coupling, device: torch.device, work: Path) -> dict[str, float]:
    compute = configs.Compute(
        device=device.type, threads=torch.get_num_threads(), checkpoint_seconds=case.checkpoint_seconds
    )
    training = configs.Training(images=case.images, batch=case.batch, lr=LR, ema=10_000, precision=case.precision)
    couples = FlowBatches(examples, coupling, LogitNormal(), LINEAR, 0.1, 0, case.batch)
    reports: list[ProgressUpdate] = []
    job = a_job(work, case.shape, training, compute, reports.append)
    prepare(compute)
    began = time.perf_counter()
    train(job, build(case.shape, 0), couples, training, device)
    seconds = time.perf_counter() - began
    facts = reports[-1].facts
    return {
        "seconds": seconds,
        "images_per_second": case.images / seconds,
        "data_wait": facts["data_wait"],
        "saving": facts["saving"],
        "data_images_per_second": _alone(couples, training.steps),
    }


def _alone(couples: FlowBatches, begin: int, steps: int = 5) -> float:
    """Images a second that the data path makes, with nothing to wait for."""
    began = time.perf_counter()
    for step in range(begin, begin + steps):
        couples(step)
    return steps * couples.batch / (time.perf_counter() - began)
