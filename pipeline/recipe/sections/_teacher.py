"""The teacher and the bank of noises that it makes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Fraction, Positive, Seeded
from pipeline.recipe.sections._training import Training


class Teacher(Seeded):
    """TarFlow by maximum likelihood on x + noise."""

    patch: Positive
    width: Positive
    blocks: Positive
    layers: Positive = Field(description="transformer layers in a block")
    head_dim: Positive = 64
    dropout: Fraction = 0.0
    volume_preserving: bool = False
    log_scale_bound: Annotated[float | None, AddedLater(4.0)] = Field(
        4.0,
        gt=0,
        description="a block scales a value by at most exp of this; null for no bound, as published weights need",
    )
    noise_std: float = Field(0.05, gt=0, le=1, description="eta, for pixels in [-1, 1]")
    dequantisation: Literal["gaussian", "uniform"] = "gaussian"
    label_drop: Fraction = 0.1
    guidance: float = Field(0.0, ge=0, description="of the samples that are drawn and evaluated")
    annealed: Annotated[bool, AddedLater(False)] = Field(False, description="let guidance grow along the tokens")
    attention_temperature: Annotated[float, AddedLater(1.0)] = Field(
        1.0, gt=0, description="of the weaker prediction that guidance moves away from; needed without classes"
    )
    temperature: Annotated[float, AddedLater(1.0)] = Field(
        1.0, gt=0, description="of the prior that samples start from"
    )
    denoise: bool = Field(True, description="remove eta from samples by Tweedie's formula")
    decoding: Literal["calibrated", "sequential"] = Field("calibrated", description="how samples are decoded")
    preview_samples: Positive = Field(40, description="samples in the picture")
    training: Training

    @model_validator(mode="after")
    def _temperature_acts(self) -> Teacher:
        if self.attention_temperature != 1 and not self.guidance:
            raise ValueError("attention_temperature acts through guidance alone: set guidance above 0")
        return self


class NoiseBank(Seeded):
    """z = f(x + eta eps) / sigma_f for several draws of eps per image, in a bank."""

    draws_per_image: Positive = Field(description="K, noise draws per image")
    dtype: Literal["float32", "float16"] = "float32"
    mantissa_bits: Annotated[int | None, AddedLater(None)] = Field(
        None, gt=0, lt=23, description="kept of each number, so that it compresses; what they cost: docs/bank.md"
    )
    shard: Positive = Field(4096, description="rows in one shard file: what a crash can cost")

    @model_validator(mode="after")
    def _bits_are_fewer(self) -> NoiseBank:
        if self.mantissa_bits and self.dtype == "float16" and self.mantissa_bits >= 10:
            raise ValueError(f"float16 has 10 mantissa bits: keep fewer than these, not {self.mantissa_bits}")
        return self
