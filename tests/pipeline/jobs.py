"""Jobs for tests: a work directory, quiet progress, and a config with a seed; a tiny network."""

from pathlib import Path

from models.unet import UNet, UNetConfig
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


def tiny_unet(**changes) -> UNet:
    """One block of 8 channels on 4x4 pixels of three classes."""
    fields = {"multipliers": (1,), "blocks": 1, "attention": (), "head_channels": 8, "dropout": 0.1, "classes": 3}
    return UNet(UNetConfig(channels=1, size=4, base=8, **fields, **changes))
