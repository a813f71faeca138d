"""Velocity networks. A section without `kind` is a U-Net."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, Fraction, Positive


class UNet(Config):
    """The ADM U-Net (Dhariwal and Nichol 2021)."""

    kind: Annotated[Literal["unet"], AddedLater("unet")] = "unet"
    base: Positive = Field(description="channels at full resolution")
    multipliers: tuple[Positive, ...] = Field(
        min_length=1, description="channels of each level, in units of base; a level halves the resolution"
    )
    blocks: Positive = Field(2, description="residual blocks of each level")
    attention: tuple[Positive, ...] = Field((16,), description="resolutions with self-attention")
    head_channels: Positive = Field(64, description="channels of an attention head")
    dropout: Fraction = Field(0.1, description="probability of dropping a feature while training")


class DiT(Config):
    """The diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748); the defaults are its size S with patches
    of 2."""

    kind: Literal["dit"]
    patch: Positive = Field(2, description="side of a patch, pixels; a patch is one token")
    width: Positive = Field(384, description="features of a token")
    depth: Positive = Field(12, description="transformer blocks")
    heads: Positive = Field(6, description="attention heads; must divide width")
    dropout: Fraction = Field(0.0, description="probability of dropping a feature while training")


def _kind(value: Any) -> Any:
    return value.get("kind", "unet") if isinstance(value, dict) else getattr(value, "kind", "unet")


Network = Annotated[Annotated[UNet, Tag("unet")] | Annotated[DiT, Tag("dit")], Discriminator(_kind)]
