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
    multipliers: tuple[Positive, ...] = Field(min_length=1)
    blocks: Positive = 2
    attention: tuple[Positive, ...] = Field((16,), description="resolutions with self-attention")
    head_channels: Positive = 64
    dropout: Fraction = 0.1


class DiT(Config):
    """The diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748); the defaults are its size S with patches
    of 2."""

    kind: Literal["dit"]
    patch: Positive = Field(2, description="side of a patch, pixels; a patch is one token")
    width: Positive = Field(384, description="features of a token")
    depth: Positive = Field(12, description="transformer blocks")
    heads: Positive = 6
    dropout: Fraction = 0.0


def _kind(value: Any) -> Any:
    return value.get("kind", "unet") if isinstance(value, dict) else getattr(value, "kind", "unet")


Network = Annotated[Annotated[UNet, Tag("unet")] | Annotated[DiT, Tag("dit")], Discriminator(_kind)]
