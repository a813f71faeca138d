"""What is measured, of which samples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.configs._base import Config, Grid, Positive, Seeded, Solver
from pipeline.fingerprint import Added


class Sweep(Config):
    """One line of the evaluation: a solver on a grid at several numbers of network calls."""

    solver: Solver = "euler"
    grid: Grid = "quadratic"
    nfe: tuple[Positive, ...] = Field((), description="network calls; none for dopri5, which chooses by itself")
    guidance: float = Field(1.0, ge=0)
    ema: Annotated[str | None, Added(None)] = Field(
        None, description="which average of the weights: a name in training.averages, such as power-0.05")

    @model_validator(mode="after")
    def _calls_where_they_can_be_chosen(self) -> Sweep:
        if (self.solver == "dopri5") == bool(self.nfe):
            raise ValueError("nfe lists the numbers of calls of a fixed-step solver, and is left out for dopri5")
        return self


class Likelihood(Config):
    """Bits per dimension of held-out images under the student's ODE."""

    images: Positive = Field(256, description="of the test split, or all there are")
    probes: Positive = Field(4, description="of Hutchinson's estimate of the divergence")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="of dopri5, relative and absolute")


class Evaluation(Seeded):
    """Frechet distance against network calls."""

    samples: int = Field(ge=16)
    student: tuple[Sweep, ...] = Field(min_length=1)
    onestep: tuple[Sweep, ...] = ()
    teacher: bool = True
    likelihood: Annotated[Likelihood | None, Added(None)] = Field(None, description="left out unless given")
