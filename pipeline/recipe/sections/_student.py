"""The student: a velocity network on a path from data to noise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import Config, Fraction, Grid, Positive, Seeded, Solver, check_calls
from pipeline.recipe.sections._coupling import Coupling
from pipeline.recipe.sections._evaluation import Sweep
from pipeline.recipe.sections._networks import Network
from pipeline.recipe.sections._objective import FlowMatching, Objective
from pipeline.recipe.sections._times import LogitNormalTime, Time
from pipeline.recipe.sections._training import Points, Training


class LinearPath(Config):
    """x_t = (1 - t) x + t z."""

    kind: Literal["linear"] = "linear"


class OptimalTransportPath(Config):
    """The straight path that ends in data with a little noise (Lipman et al. 2023, arXiv 2210.02747, eq. 20)."""

    kind: Literal["cond-ot"] = "cond-ot"
    sigma_min: float = Field(1e-4, gt=0, lt=1, description="standard deviation of the noise at t = 0")


class VariancePreservingPath(Config):
    """The diffusion path of DDPM."""

    kind: Literal["vp"] = "vp"
    beta_min: float = Field(0.1, gt=0, description="noise rate at t = 0")
    beta_max: float = Field(20.0, gt=0, description="noise rate at t = 1")

    @model_validator(mode="after")
    def _rate_rises(self) -> VariancePreservingPath:
        if self.beta_max < self.beta_min:
            raise ValueError(f"beta_max ({self.beta_max:g}) must be at least beta_min ({self.beta_min:g})")
        return self


class VarianceExplodingPath(Config):
    """The diffusion path of score matching with ever larger noise."""

    kind: Literal["ve"] = "ve"
    sigma_min: float = Field(0.01, gt=0, description="noise level at t = 0")
    sigma_max: float = Field(50.0, gt=0, description="noise level at t = 1")

    @model_validator(mode="after")
    def _noise_grows(self) -> VarianceExplodingPath:
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max ({self.sigma_max:g}) must be above sigma_min ({self.sigma_min:g})")
        return self


Path = Annotated[
    LinearPath | OptimalTransportPath | VariancePreservingPath | VarianceExplodingPath, Field(discriminator="kind")
]


class LowResolution(Config):
    """The image itself at a lower resolution: super-resolution (SR3, Saharia et al. 2021, arXiv 2104.07636)."""

    kind: Literal["low-resolution"] = "low-resolution"
    factor: int = Field(2, ge=2, description="how many times smaller each side is; must divide the images' side")


class SampleQuality(Config):
    """Frechet distance of samples at points of the training, of each average of the weights.

    The best average by the distance to the training images is stored; `evaluation.student.ema: best` samples it.
    Samples of images from images are made from training inputs.
    """

    points: Points = 10
    samples: int = Field(2500, ge=16, description="at each point; more than the extractor has features")
    solver: Solver = Field("heun", description="of the ODE")
    grid: Grid = "uniform"
    nfe: Positive | None = Field(8, description="network calls; null for dopri5, which chooses them")
    guidance: float = Field(1.0, ge=0, description="weight of classifier-free guidance; 1 for none")

    @model_validator(mode="after")
    def _calls_that_can_be_made(self) -> SampleQuality:
        check_calls(self.solver, self.guidance, self.nfe)
        return self

    @property
    def sweep(self) -> Sweep:
        return Sweep(solver=self.solver, grid=self.grid, nfe=(self.nfe,) if self.nfe else (), guidance=self.guidance)


class Student(Seeded):
    """A velocity network on the path from x to z; the coupling chooses z for x."""

    coupling: Coupling
    network: Network
    objective: Annotated[Objective, AddedLater(FlowMatching())] = FlowMatching()
    path: Path = LinearPath()
    condition: Annotated[LowResolution | None, AddedLater(None)] = Field(
        None, description="information on the target image, as further input channels"
    )
    time: Time = LogitNormalTime()
    label_drop: Fraction = Field(
        0.1, description="probability of training an image without its class, which guidance needs"
    )
    training: Training
    quality: Annotated[SampleQuality | None, AddedLater(None)] = Field(
        None, description="Frechet distance while it trains, and the best average by it; off unless given"
    )
