"""The teacher and its bank of noise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, Fraction, Positive, Seeded
from pipeline.recipe.sections._training import Points, Training


class HeldOutBits(Config):
    """Bits per dimension of the held-out images at points of the training, of each average of the weights."""

    points: Points = 10
    use: Literal["last", "best"] = Field(
        "last",
        description="weights that the teacher is used with: the first average at the end, or the best by these bits",
    )


class Teacher(Seeded):
    """TarFlow by maximum likelihood on x + noise."""

    patch: Positive = Field(description="side of a patch, pixels; a patch is one token")
    width: Positive = Field(description="features of a token")
    blocks: Positive = Field(description="autoregressive blocks")
    layers: Positive | tuple[Positive, ...] = Field(
        description="transformer layers in a block, or in each, the block that reads the image first"
    )
    head_dim: Positive = Field(64, description="features of an attention head; must divide width")
    dropout: Fraction = Field(0.0, description="probability of dropping a feature while training")
    volume_preserving: bool = Field(False, description="shift only, with a learned diagonal Gaussian prior")
    log_scale_bound: Annotated[float | None, AddedLater(4.0)] = Field(
        4.0,
        gt=0,
        description="a block scales a value by at most exp of this; null for no bound, as published weights need",
    )
    noise_std: float = Field(0.05, gt=0, le=1, description="eta, for pixels in [-1, 1]")
    noise_levels: Annotated[tuple[float, float] | None, AddedLater(None)] = Field(
        None,
        description="train on every eta between these two, drawn for each image, and give the network that eta "
        "(iTARFlow); it encodes and samples at noise_std",
    )
    dequantisation: Literal["gaussian"] = Field(
        "gaussian", description="noise added to pixels in training; couplings need this one"
    )
    label_drop: Fraction = Field(
        0.1, description="probability of training an image without its class, which guidance needs"
    )
    guidance: float = Field(0.0, ge=0, description="guidance of the samples that are drawn and evaluated")
    annealed: Annotated[bool, AddedLater(False)] = Field(False, description="let guidance grow along the tokens")
    attention_temperature: Annotated[float, AddedLater(1.0)] = Field(
        1.0, gt=0, description="attention temperature of the weaker prediction that guidance moves away from"
    )
    temperature: Annotated[float, AddedLater(1.0)] = Field(
        1.0, gt=0, description="temperature of the prior that samples start from"
    )
    denoise: bool = Field(True, description="remove eta from samples by Tweedie's formula")
    decoding: Literal["calibrated", "sequential"] = Field("calibrated", description="how samples are decoded")
    preview_samples: Positive = Field(40, le=10_000, description="samples in the picture")
    training: Training
    quality: Annotated[HeldOutBits | None, AddedLater(None)] = Field(
        None, description="held-out bits per dimension while it trains; off unless given"
    )

    @model_validator(mode="after")
    def _layers_of_each_block(self) -> Teacher:
        if not isinstance(self.layers, int) and len(self.layers) != self.blocks:
            raise ValueError(
                f"layers must be one number, or one for each of {self.blocks} blocks, got {self.layers}: set both"
            )
        return self

    @model_validator(mode="after")
    def _guidance_is_there(self) -> Teacher:
        if self.attention_temperature != 1 and not self.guidance:
            raise ValueError("attention_temperature needs guidance: set guidance above 0")
        if self.annealed and not self.guidance:
            raise ValueError("annealed is of guidance: set guidance above 0, or leave it out")
        return self

    @model_validator(mode="after")
    def _levels_hold_noise_std(self) -> Teacher:
        if self.noise_levels is None:
            return self
        low, high = self.noise_levels
        if not 0 < low < high <= 1 or not low <= self.noise_std <= high:
            raise ValueError(
                f"noise_levels must be [low, high] with 0 < low < high <= 1 and noise_std {self.noise_std:g} between "
                f"them, got [{low:g}, {high:g}]"
            )
        return self


class NoiseBank(Seeded):
    """z = f(x + eta eps) / sigma_f for several draws of eps per image, in a bank."""

    draws_per_image: Positive = Field(description="K, noise draws per image")
    dtype: Literal["float32", "float16"] = Field("float32", description="type that z is stored in")
    mantissa_bits: Annotated[int | None, AddedLater(None)] = Field(
        None, gt=0, lt=23, description="bits of each mantissa to store, so that numbers compress; see docs/bank.md"
    )
    shard: Positive = Field(4096, description="rows in one shard file: a crash loses at most one shard")
    whiten: Annotated[bool, AddedLater(False)] = Field(
        False, description="give the noise of each class mean 0 and covariance I by a linear map, as N(0, I) has them"
    )

    @model_validator(mode="after")
    def _bits_are_fewer(self) -> NoiseBank:
        if self.mantissa_bits and self.dtype == "float16" and self.mantissa_bits >= 10:
            raise ValueError(f"mantissa_bits must be below 10 for float16, got {self.mantissa_bits}")
        return self
