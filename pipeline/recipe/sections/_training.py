"""How a network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, Fraction, Positive


class HalfLife(Config):
    """An exponential average of the weights with this half-life in images."""

    images: Positive = Field(description="half-life, images")

    @property
    def name(self) -> str:
        return f"half-life-{self.images}"


class Power(Config):
    """A power-function average (Karras et al. 2024, arXiv 2312.02696): its width is a share of the training."""

    width: float = Field(gt=0, lt=0.28, description="sigma_rel; 0.05 and 0.1 are usual")

    @property
    def name(self) -> str:
        return f"power-{self.width:g}"


Points = Annotated[
    int, Field(gt=0, le=200, description="points of the training, evenly spaced in images seen; the last is its end")
]


class Training(Config):
    """How a network is trained. The clock is images seen: a change of batch size moves no schedule."""

    images: Positive = Field(description="length of training")
    batch: Positive = Field(description="images in one optimizer step, over all ranks")
    accumulate: Positive = Field(1, description="parts of a batch, one after another, to save memory")
    lr: float = Field(gt=0, description="peak learning rate")
    final_lr: float = Field(0.0, ge=0, description="rate at the end of the cosine")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate after the warm-up")
    warmup: int = Field(0, ge=0, description="images over which the rate rises linearly")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's decay rates of the two moments")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of AdamW, per step and unit of rate")
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: Positive = Field(description="half-life of the averaged weights")
    averages: Annotated[tuple[HalfLife | Power, ...], AddedLater(())] = Field(
        (), description="further averages of the weights; evaluation.*.ema names one"
    )
    optimizer: Annotated[Literal["adamw", "adam"], AddedLater("adamw")] = Field("adamw", description="AdamW or Adam")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="type of the activations; weights stay float32"
    )

    @model_validator(mode="after")
    def _decay_is_decoupled(self) -> Training:
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                "weight_decay is the decoupled decay of AdamW, and Adam would put it into the gradient: set optimizer "
                "to adamw, or weight_decay to 0"
            )
        return self

    @model_validator(mode="after")
    def _lengths_agree(self) -> Training:
        if self.images < self.batch:
            raise ValueError(f"images ({self.images}) must be at least one batch ({self.batch})")
        if self.batch % self.accumulate:
            raise ValueError(f"batch ({self.batch}) must be divisible by accumulate ({self.accumulate})")
        if 2 * self.warmup > self.images:
            raise ValueError(
                f"warmup ({self.warmup}) must be at most half of images ({self.images}), or the rate hardly reaches "
                f"lr: set warmup to {self.images // 10}"
            )
        if self.schedule == "cosine" and self.final_lr > self.lr:
            raise ValueError(f"final_lr ({self.final_lr:g}) must be at most lr ({self.lr:g}), where the cosine begins")
        names = [average.name for average in (self.first_average, *self.averages)]
        if len(set(names)) < len(names):
            raise ValueError(f"averages must differ from each other and from that of ema, got {', '.join(names)}")
        return self

    @property
    def first_average(self) -> HalfLife:
        """That of `ema`, which samples use unless they name another."""
        return HalfLife(images=self.ema)

    @property
    def steps(self) -> int:
        """Optimizer steps, the last one not cut short."""
        return -(-self.images // self.batch)
