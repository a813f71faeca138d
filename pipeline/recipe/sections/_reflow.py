"""Pairs that a student generates, and the students trained on them: rounds of reflow and a few-step student."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import (
    Config,
    Fraction,
    Grid,
    Positive,
    Seeded,
    Share,
    Solver,
    Temperature,
    check_calls,
)
from pipeline.recipe.sections._losses import Loss, SquaredError
from pipeline.recipe.sections._objective import MeanFlow
from pipeline.recipe.sections._times import Time, UniformTime
from pipeline.recipe.sections._training import Training

MOST_ROUNDS = 9


class Pairs(Seeded):
    """(z, ODE(z)) from the student."""

    count: Positive = Field(description="number of pairs")
    solver: Solver = Field("euler", description="of the ODE")
    grid: Grid = "uniform"
    nfe: Positive | None = Field(8, description="network calls for each pair; null for dopri5, which chooses them")
    guidance: float = Field(1.0, ge=0, description="weight of classifier-free guidance; 1 for none")
    temperature: Annotated[Temperature, AddedLater(1.0)] = Field(
        1.0,
        description="as in an evaluation; the pair's z is stored without it, so that students of pairs start from "
        "N(0, I)",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="type that pairs are stored in")
    shard: Positive = Field(4096, description="pairs in one shard file: a crash loses at most one shard")
    intervals: Annotated[Positive, AddedLater(1)] = Field(
        1, description="parts of each path whose ends are stored; follows from onestep.steps, leave it out"
    )
    forward: Annotated[bool, AddedLater(False)] = Field(
        False, description="also carry the training images to their noise; follows from mix.forward, leave it out"
    )

    drop_longest: Annotated[Fraction, AddedLater(0.0)] = Field(
        0.0, description="share of the pairs to train without, those of the largest |x - z|"
    )

    @model_validator(mode="after")
    def _calls_that_can_be_made(self) -> Pairs:
        check_calls(self.solver, self.guidance, self.nfe)
        return self


class Mix(Config):
    """Which pairs a round is trained on."""

    forward: Share = Field(
        0.0, description="share of pairs that start from a training image; the others start from noise"
    )


class Reflow(Seeded):
    """A student trained over all t on pairs of the previous student, from its weights (Liu et al. 2023, 2209.03003)."""

    time: Time = UniformTime()
    loss: Loss = SquaredError()
    mix: Mix = Mix()
    training: Training


class Round(Reflow):
    """One round of reflow: the pairs, and the student trained on them."""

    pairs: Pairs

    @property
    def student(self) -> Reflow:
        """The settings of its training."""
        return Reflow(**{name: getattr(self, name) for name in Reflow.model_fields})


class OneStep(Seeded):
    """A student trained on pairs from the last one's weights: over all t (reflow), to go `steps` steps (distil), or to
    jump over any interval (meanflow)."""

    mode: Literal["reflow", "distil", "meanflow"] = Field(
        description="reflow: train over all t; distil: train for `steps` steps; meanflow: learn average velocities"
    )
    steps: Annotated[Positive, AddedLater(1)] = Field(
        1, le=64, description="Euler steps on the uniform grid; 1 for reflow and meanflow"
    )
    time: Time = UniformTime()
    loss: Annotated[Loss, AddedLater(SquaredError())] = SquaredError()
    objective: Annotated[MeanFlow, AddedLater(MeanFlow())] = Field(
        MeanFlow(), description="of the mode meanflow, whose loss it is"
    )
    training: Training

    @model_validator(mode="after")
    def _losses_are_of_their_modes(self) -> OneStep:
        if self.mode == "distil" and self.time != UniformTime():
            raise ValueError("the mode distil is trained at the ends of its steps alone: leave time out")
        if self.mode == "meanflow" and self.loss != SquaredError():
            raise ValueError("the mode meanflow weighs its squared error: set objective.power, and leave loss out")
        if self.objective.guided:
            raise ValueError(
                "students of pairs are trained with the class only, and guidance also needs none: set "
                "objective.guidance to 1, and guide the pairs"
            )
        if self.mode != "meanflow" and self.objective != MeanFlow():
            raise ValueError("objective is of average velocities: set mode to meanflow, or leave objective out")
        return self

    @model_validator(mode="after")
    def _steps_are_distilled(self) -> OneStep:
        if self.mode != "distil" and self.steps != 1:
            raise ValueError("steps needs mode distil: set mode to distil, or leave steps out")
        return self
