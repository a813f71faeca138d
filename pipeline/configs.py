"""The sections of a recipe: one frozen, validated model for each stage. Lengths of training are in images seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.fingerprint import Added, Incidental

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Solver = Literal["euler", "midpoint", "heun", "rk4", "dopri5"]
Grid = Literal["uniform", "quadratic"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Config(BaseModel):
    """A section: unknown keys are refused, and nothing changes after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seeded(Config):
    seed: int | None = Field(None, ge=0, lt=2**32, description="the recipe's seed unless given")


class Data(Config):
    """Images into one image set with labels and a train/test split."""

    source: Literal["digits", "cifar10", "images"]
    path: Annotated[Path | None, Incidental] = Field(None, description="local archive or folder; its content counts")
    checksum: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="of the archive at `path`")
    size: int | None = Field(None, ge=4, le=1024, description="crop to a square and resize to this side, pixels")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="held out where the source has no split of its own")
    limit: Positive | None = Field(None, description="keep only so many images of each split")
    flips: bool = Field(False, description="train on mirrored images too")
    seed: int = Field(0, ge=0, description="of the split; apart from the recipe's, so that all seeds share it")

    @model_validator(mode="after")
    def _source_has_files(self) -> Data:
        if self.source == "images" and self.path is None:
            raise ValueError("the source 'images' reads a folder or archive: set data.path")
        if self.source == "digits" and (self.path or self.checksum or self.size):
            raise ValueError("the source 'digits' is built in: leave path, checksum and size out")
        return self


class Training(Config):
    """How a network is trained. The clock is images seen: a change of batch size moves no schedule."""

    images: Positive = Field(description="length of training")
    batch: Positive = Field(description="images in one optimizer step, over all ranks")
    accumulate: Positive = Field(1, description="split the batch into so many parts that fit the memory")
    lr: float = Field(gt=0, description="peak learning rate")
    final_lr: float = Field(0.0, ge=0, description="where the cosine ends, and stays")
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0, description="images over which the rate rises linearly")
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: Positive = Field(description="half-life of the averaged weights")
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _lengths_agree(self) -> Training:
        if self.images < self.batch:
            raise ValueError(f"images ({self.images}) must be at least one batch ({self.batch})")
        if self.batch % self.accumulate:
            raise ValueError(f"batch ({self.batch}) must be divisible by accumulate ({self.accumulate})")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps, the last one not cut short."""
        return -(-self.images // self.batch)


class Teacher(Seeded):
    """TarFlow by maximum likelihood on x + noise."""

    patch: Positive
    width: Positive
    blocks: Positive
    layers: Positive = Field(description="transformer layers in a block")
    head_dim: Positive = 64
    dropout: Fraction = 0.0
    volume_preserving: bool = False
    noise: float = Field(0.05, gt=0, le=1, description="eta, for pixels in [-1, 1]")
    dequantisation: Literal["gaussian", "uniform"] = "gaussian"
    label_drop: Fraction = 0.1
    guidance: float = Field(0.0, ge=0, description="of the samples that are drawn and evaluated")
    annealed: Annotated[bool, Added(False)] = Field(False, description="let guidance grow along the tokens")
    attention_temperature: Annotated[float, Added(1.0)] = Field(
        1.0, gt=0, description="of the weaker prediction that guidance moves away from; needed without classes")
    temperature: Annotated[float, Added(1.0)] = Field(1.0, gt=0, description="of the prior that samples start from")
    denoise: bool = Field(True, description="remove eta from samples by Tweedie's formula")
    decoding: Literal["calibrated", "sequential"] = Field("calibrated", description="how samples are decoded")
    shown: Positive = Field(40, description="samples in the picture")
    training: Training

    @model_validator(mode="after")
    def _temperature_acts(self) -> Teacher:
        if self.attention_temperature != 1 and not self.guidance:
            raise ValueError("attention_temperature acts through guidance alone: set guidance above 0")
        return self


class Couplings(Seeded):
    """z = f(x + eta eps) / sigma_f for several draws of eps per image, in a bank."""

    draws: Positive = Field(description="K, noise draws per image")
    dtype: Literal["float32", "float16"] = "float32"
    shard: Positive = Field(4096, description="rows in one shard file: what a crash can cost")


class UNet(Config):
    """The ADM U-Net (Dhariwal and Nichol 2021)."""

    base: Positive = Field(description="channels at full resolution")
    multipliers: tuple[Positive, ...] = Field(min_length=1)
    blocks: Positive = 2
    attention: tuple[Positive, ...] = Field((16,), description="resolutions with self-attention")
    head_channels: Positive = 64
    dropout: Fraction = 0.1


class LogitNormalTime(Config):
    """logit(t) ~ N(mean, std^2)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = -0.2
    std: float = Field(1.0, gt=0)


class UniformTime(Config):
    kind: Literal["uniform"] = "uniform"


Time = Annotated[LogitNormalTime | UniformTime, Field(discriminator="kind")]


class Student(Seeded):
    """A velocity network on the path x_t = (1 - t) x + t z; the coupling chooses z for x."""

    coupling: Literal["nfm", "independent", "ot"]
    network: UNet
    time: Time = LogitNormalTime()
    label_drop: Fraction = 0.1
    training: Training


class Pairs(Seeded):
    """(z, ODE(z)) from the student."""

    count: Positive
    solver: Solver = "euler"
    grid: Grid = "quadratic"
    nfe: Positive = 8
    guidance: float = Field(1.0, ge=0)
    dtype: Literal["float32", "float16"] = "float32"
    shard: Positive = 4096


class OneStep(Seeded):
    """A student trained on pairs from the first one's weights: over all t (reflow) or at t = 1 (distil)."""

    mode: Literal["reflow", "distil"]
    time: Time = UniformTime()
    training: Training


class Reference(Config):
    """The feature space and the real statistics that every Frechet distance of a data set is measured in."""

    extractor: Literal["classifier", "pixels"] = Field("classifier", description="pixels where there are no classes")
    seed: int = Field(0, ge=0)


class Sweep(Config):
    """One line of the evaluation: a solver on a grid at several numbers of network calls."""

    solver: Solver = "euler"
    grid: Grid = "quadratic"
    nfe: tuple[Positive, ...] = Field((), description="network calls; none for dopri5, which chooses by itself")
    guidance: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _calls_where_they_can_be_chosen(self) -> Sweep:
        if (self.solver == "dopri5") == bool(self.nfe):
            raise ValueError("nfe lists the numbers of calls of a fixed-step solver, and is left out for dopri5")
        return self


class Evaluation(Seeded):
    """Frechet distance against network calls."""

    samples: int = Field(ge=16)
    student: tuple[Sweep, ...] = Field(min_length=1)
    onestep: tuple[Sweep, ...] = ()
    teacher: bool = True


class Compute(Config):
    """Where and how fast; nothing here can change a result beyond rounding, and nothing here is fingerprinted."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: Positive | None = Field(None, description="CPU threads; all there are unless given")
    batch: Positive = Field(512, description="images at once in encoding, sampling and features")
    checkpoint_seconds: float = Field(15.0, gt=0)
    compile: bool = False

    @property
    def cores(self) -> int:
        """CPU threads to use: as asked for, else as many as this process may run on."""
        if self.threads is not None:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
