"""When: the times that a network is trained at. t = 0 is data, t = 1 is noise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe.sections._base import Config


class LogitNormalTime(Config):
    """logit(t) ~ N(mean, std^2)."""

    kind: Literal["logit-normal"] = "logit-normal"
    mean: float = -0.2
    std: float = Field(1.0, gt=0)


class UniformTime(Config):
    kind: Literal["uniform"] = "uniform"


class UShapedTime(Config):
    """Most at both ends, where a reflowed student still errs (Lee et al. 2024, arXiv 2405.20320, sec. 4.1)."""

    kind: Literal["u-shaped"] = "u-shaped"
    a: float = Field(4.0, gt=0, le=50, description="how much: the density at the ends is cosh(a / 2) that at t = 1/2")


Time = Annotated[LogitNormalTime | UniformTime | UShapedTime, Field(discriminator="kind")]
