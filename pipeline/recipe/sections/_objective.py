"""What a student learns. A name alone, such as `objective: meanflow`, is that kind with its defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, named
from pipeline.recipe.sections._times import LogitNormalTime, Time


class _Objective(Config):
    @property
    def guided(self) -> bool:
        """Whether guidance is part of what is learned."""
        return False


class FlowMatching(_Objective):
    """The velocity at each time; samples integrate it."""

    kind: Literal["flow-matching"] = "flow-matching"


class MeanFlow(_Objective):
    """The average velocity over an interval [r, t], so that one call jumps over it (Geng et al. 2025, 2505.13447).

    The defaults are those of the paper's ablations on ImageNet at 256 pixels (table 1), which CIFAR-10's differ from.
    The first time is the section's own `time`, with its own default: the paper draws both times alike.
    """

    kind: Literal["meanflow"] = "meanflow"
    interval_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share of each batch with r < t; the rest learns the velocity, r = t. The best of the ablation on "
        "ImageNet; the published CIFAR-10 settings take 0.75",
    )
    r_time: Time = Field(
        LogitNormalTime(mean=-0.4), description="of the second time; t is the later of it and student.time, r the other"
    )
    power: float = Field(1.0, ge=0, description="p of the weight 1 / (error + epsilon)^p; 0 is the squared error")
    epsilon: float = Field(1e-3, gt=0, description="keeps the weight finite, in squared norms of an image")
    improved: bool = Field(
        False, description="follow the network's own velocity in the derivative, not the pair's (arXiv 2512.02012)"
    )
    guidance: Annotated[float, AddedLater(1.0)] = Field(
        1.0,
        ge=0,
        description="weight of classifier-free guidance whose average velocities are learned, so that a guided sample "
        "needs one call a step and its sampler no guidance (sec. 4.2); 1 for none",
    )
    time_scale: float = Field(
        16.0,
        gt=0,
        description="radians of the fastest sinusoid that embeds a time; the derivative in t is part of the target, "
        "and at 1000, which other students have, it oscillates",
    )

    @property
    def guided(self) -> bool:
        return self.guidance != 1


Objective = Annotated[Annotated[FlowMatching | MeanFlow, Field(discriminator="kind")], BeforeValidator(named)]
