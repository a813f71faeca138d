"""What each stage reports: the validated `metrics` of its artifact. Light to import, for planning reads it too."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataResult(Result):
    name: str
    train: int
    test: int
    channels: int
    size: int
    levels: int
    classes: tuple[str, ...] | None
    pixels: tuple[int, int] | None = Field(None, description="channels and size of the images, where there are latents")


class ReferenceResult(Result):
    metric: str = Field(description="what a Frechet distance in these features may be called")
    facts: dict[str, str] = Field(description="what a protocol must say of the extractor")
    extractor: str = Field(description="name and digest of the network that gives the features")
    features: int
    accuracy: float | None = Field(description="of the extractor on held-out images")
    images: int
    split_half: float = Field(description="FD between random halves of the training images: the floor")
    held_out: float = Field(description="FD of the held-out images")


class Trained(Result):
    images_seen: int
    steps: int
    loss: float = Field(description="mean over the last twentieth of training")
    parameters: int


class TeacherResult(Trained):
    bits_per_dim: float = Field(description="held-out; a bound where the dequantisation is uniform")
    bits_per_dim_train: float
    dequantisation: str
    schedule: list[dict[str, Any]] = Field(description="decoding schedule of each block, from calibration")


class CouplingsResult(Result):
    rows: int
    draws: int
    sigma_f: float
    noise: float
    gaussianity: dict[str, Any]
    warnings: tuple[str, ...]


class PotentialsResult(Result):
    points: int
    steps: int = Field(description="of the ascent, over all classes")
    divergence: float = Field(description="largest chi^2 of a class between the cells' masses and equal ones")
    warnings: tuple[str, ...]


class VelocityVariance(Result):
    """E Var(v | x_t, t) per dimension of a student's couples, estimated from pairs and their neighbours."""

    mean: float = Field(description="over t")
    times: tuple[float, ...]
    values: tuple[float, ...] = Field(description="at these times")
    pairs: int = Field(description="that it was estimated from; compare at equal numbers")
    within_classes: bool = Field(description="given the class, as the network is")


class StudentResult(Trained):
    coupling: str
    transport_cost: float = Field(description="mean squared distance of z and x per dimension, over training")
    velocity_variance: VelocityVariance | None = Field(None, description="of the couples that come after training")
    noise_gaussianity: dict[str, Any] | None = Field(None, description="of their z; `pipeline.metrics.gaussianity`")


class PairsResult(Result):
    count: int
    nfe: int
    solver: str
    straightness: float


class Score(Result):
    """One number with what is needed to make it again."""

    model: str
    solver: str
    nfe: float
    metric: str
    value: float
    protocol: dict[str, Any]
    seconds: float = Field(description="sampling time of all images")


class LikelihoodResult(Result):
    """Bits per dimension of held-out images under the student's ODE, uniformly dequantised."""

    bits_per_dim: float
    standard_error: float = Field(description="of the mean, from the spread between images")
    probe_error: float = Field(description="the part of it that comes from Hutchinson's probes")
    images: int
    probes: int
    tolerance: float = Field(description="of dopri5, relative and absolute")
    calls: float = Field(description="network calls, mean over batches")


class EvaluationResult(Result):
    protocol: str = Field(description="digest of what all scores share: extractor, reference, counts, quantisation")
    floor: float
    scores: tuple[Score, ...]
    curvature: float
    likelihood: LikelihoodResult | None = None
    warnings: tuple[str, ...]


class ReportResult(Result):
    page: str
