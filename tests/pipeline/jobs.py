"""Jobs for tests: a work directory, quiet progress, and a config with a seed."""

from pathlib import Path

from pipeline.recipe.sections import Compute, Seeded, Training
from pipeline.runtime.job import Job, Progress


class Trains(Seeded):
    training: Training


def training(**changes) -> Training:
    return Training(**{"images": 640, "batch": 32, "lr": 1e-2, "ema": 100, **changes})


def job(work: Path, stage: str = "student", **compute) -> Job:
    work.mkdir(parents=True, exist_ok=True)
    config = Trains(seed=3, training=training())
    return Job(stage, config, {}, work, Compute(device="cpu", threads=1, **compute), Progress(stage, work))
