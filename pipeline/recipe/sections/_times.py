"""The distribution of training times. t = 0 is data, t = 1 is noise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe.sections._base import Config


class LogitNormalTime(Config):
    """logit(t) ~ N(mean, std^2)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = Field(-0.2, description="of logit(t)")
    std: float = Field(1.0, gt=0, description="of logit(t)")


class UniformTime(Config):
    """t ~ U(0, 1)."""

    kind: Literal["uniform"] = "uniform"


class UShapedTime(Config):
    """Most mass at both ends, where a reflowed student has most error (Lee et al. 2024, arXiv 2405.20320, sec. 4.1)."""

    kind: Literal["u-shaped"] = "u-shaped"
    a: float = Field(4.0, gt=0, le=50, description="strength: the density at the ends is cosh(a / 2) that at t = 1/2")


Time = Annotated[LogitNormalTime | UniformTime | UShapedTime, Field(discriminator="kind")]
