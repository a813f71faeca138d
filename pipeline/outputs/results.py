"""The result of each stage: the validated `metrics` of its artifact. Light to import, since planning reads it too."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.recipe.sections import ADAPTIVE
from storage.checksummed_json import json_digest


class Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LeftOut(Result):
    """Files of a source that are not among its images."""

    kind: str = Field(description="an extension, or a word such as hidden")
    count: int
    names: tuple[str, ...] = Field(description="the first")


class DataResult(Result):
    name: str
    train: int
    test: int
    channels: int
    size: int
    levels: int
    classes: tuple[str, ...] | None
    pixels: tuple[int, int] | None = Field(None, description="channels and size of the images, where there are latents")
    left_out: tuple[LeftOut, ...] = Field((), description="files of the source that are not among the images")
    notes: tuple[str, ...] = Field((), description="assumptions about the source")


class ReferenceResult(Result):
    metric: str = Field(description="name of a Frechet distance in these features")
    facts: dict[str, str] = Field(description="the protocol's fields of the extractor")
    extractor: str = Field(description="name and digest of the network that gives the features")
    features: int
    accuracy: float | None = Field(description="of the extractor on held-out images")
    images: int
    split_half: float = Field(description="FD between random halves of the training images: the floor")
    held_out: float = Field(description="FD between the training and the held-out images")


class QualityResult(Result):
    """The best average of the weights by scores at points of the training, which history.jsonl lists."""

    metric: str
    extractor: str | None = Field(None, description="of the features, where the metric has some")
    chosen_by: str = Field(description="how the best average was chosen, in words, for protocols")
    points: int
    average: str
    images: int = Field(description="images seen")
    value: float
    warnings: tuple[str, ...] = ()


class Trained(Result):
    images_seen: int
    steps: int
    loss: float = Field(description="mean over the last twentieth of training")
    parameters: int
    quality: QualityResult | None = Field(
        None, description="the best average while it trained, where this was measured"
    )


class TeacherResult(Trained):
    bits_per_dim: float = Field(description="held-out")
    bits_per_dim_train: float
    dequantisation: str
    schedule: list[dict[str, Any]] = Field(description="decoding schedule of each block, from calibration")


class BankResult(Result):
    rows: int
    draws: int
    sigma_f: float
    whitened: bool = Field(False, description="within classes")
    noise: float
    gaussianity: dict[str, Any] = Field(
        description="of z: `pipeline.metrics.gaussianity`, with `two_sample` and `class_leak` as `ProbeResult`"
    )
    warnings: tuple[str, ...]


class PotentialsResult(Result):
    points: int
    steps: int = Field(description="of the ascent, over all classes")
    divergence: float = Field(description="largest chi^2 of a class between the cells' masses and equal ones")
    warnings: tuple[str, ...]


class VelocityVariance(Result):
    """E Var(v | x_t, t) per dimension of a student's pairs, estimated from some of them and their neighbours."""

    mean: float = Field(description="over t")
    times: tuple[float, ...]
    values: tuple[float, ...] = Field(description="at these times")
    pairs: int = Field(description="that it was estimated from; compare at equal numbers")
    within_classes: bool = Field(description="given the class, as the network is")


class ProbeResult(Result):
    """Held-out accuracy of a small classifier of noises: `pipeline.metrics.probe`."""

    accuracy: float
    chance: float
    standard_error: float = Field(description="of the accuracy where there is nothing to find")
    decisions: int


class Truncation(Result):
    """Pairs that are left out because their noise is farthest from their image."""

    pairs: int = Field(description="before")
    dropped: int
    dropped_by_class: tuple[int, ...] | None = Field(description="of them, by label; where there are classes")


class StudentResult(Trained):
    coupling: str
    transport_cost: float = Field(description="mean squared distance of z and x per dimension, over training")
    velocity_variance: VelocityVariance | None = Field(
        None, description="of the pairs that follow those of the training"
    )
    noise_gaussianity: dict[str, Any] | None = Field(
        None, description="of the z of these pairs; `pipeline.metrics.gaussianity`"
    )

    class_leak: ProbeResult | None = Field(
        None, description="the class predicted from z alone; where there are classes"
    )
    truncation: Truncation | None = Field(None, description="of the bank; where drop_longest is set")


class ReflowResult(StudentResult):
    straightness: float = Field(description="of this student's paths, on the first noises of its pairs; 0 is straight")
    straightness_before: float = Field(
        description="of the student that generated the pairs, on the same noises at the temperature of the pairs"
    )
    warnings: tuple[str, ...] = Field(description="figures that are worse after this round")


class PairsResult(Result):
    count: int
    nfe: float = Field(description="network calls for each pair; of an adaptive solver those of the first pairs")
    solver: str
    straightness: float = Field(description="of the student's paths, on the first noises")
    truncation: Truncation | None = Field(None, description="of these pairs; where drop_longest is set")


class Score(Result):
    """One number, and the protocol that reproduces it."""

    model: str
    solver: str
    nfe: float
    metric: str
    value: float = Field(description="against the training images, where it compares")
    protocol: dict[str, Any]
    seconds: float = Field(description="sampling time of all images, over all ranks")
    error: float | None = Field(None, description="standard error of the value, for metrics that have one")
    value_held_out: float | None = Field(
        None, description="the same samples' distance to the held-out images, for metrics that are distances"
    )
    error_held_out: float | None = Field(None, description="its standard error, for metrics that have one")
    value_at_equal_count: float | None = Field(
        None,
        description="of a Frechet distance: against the training images, of as many samples of each class as there are "
        "held-out images; null where there are too few. The one to hold against theirs",
    )

    @property
    def seconds_per_image(self) -> float | None:
        """Sampling time of one image on one device; None where the protocol lacks the number of samples."""
        count = self.protocol.get("n_fake")
        return self.seconds / count if count else None

    @property
    def temperature(self) -> float:
        """Of the noise that samples start from; 1 unless the protocol says so."""
        return self.protocol.get("temperature", 1.0)

    @property
    def digest(self) -> str:
        """Of all settings of this number: numbers of one digest were measured alike."""
        nfe = {"calls": self.nfe} if self.solver != ADAPTIVE else {}
        facts = {"model": self.model, "solver": self.solver, "metric": self.metric, **nfe, "protocol": self.protocol}
        return json_digest(facts)[:16]


class LikelihoodResult(Result):
    """Bits per dimension of held-out images under the student's ODE, uniformly dequantised."""

    bits_per_dim: float
    standard_error: float = Field(description="of the mean, from the spread between images")
    probe_error: float = Field(description="the part of it that comes from Hutchinson's probes")
    images: int
    probes: int
    tolerance: float = Field(description="of dopri5, relative and absolute")
    calls: float = Field(description="network calls, mean over batches")


class PathResult(Result):
    """How straight a model's paths are, from noise to data: `pipeline.metrics.straightness`."""

    model: str
    straightness: float = Field(description="mean of |(z - x) - v(x_t, t)|^2 per dimension; 0 is straight")
    curvature: float = Field(description="mean of 1 - cos between consecutive velocities")
    steps: int = Field(description="of Euler that the paths were walked in")
    paths: int


class MemorisationResult(Result):
    """Distances to the nearest training image, root mean square per dimension, in [-1, 1] units of grey value."""

    model: str
    solver: str
    nfe: float
    samples: tuple[float, float, float] = Field(description="least, median, greatest of generated images")
    held_out: tuple[float, float, float] = Field(description="the same of real images not trained on")
    near: float = Field(description="the 5th percentile of held-out images that are no training images")
    copies: float = Field(description="share of samples up to that; about 0.05 is chance")
    generated: int
    real: int = Field(description="held-out images")
    train: int = Field(description="training images, mirror images of them included where these were trained on")


class EvaluationResult(Result):
    protocol: str = Field(description="digest of what all scores share: extractor, reference, counts, quantisation")
    floor: float = Field(description="Frechet distance between two halves of the real images")
    scores: tuple[Score, ...]
    curvature: float
    likelihood: LikelihoodResult | None = None
    floors: dict[str, float] = Field({}, description="two halves of the real images in the other metrics")
    held_out: dict[str, float] = Field(
        {}, description="distance between the training and the held-out images, by metric: the yardstick of all scores"
    )
    paths: tuple[PathResult, ...] = Field((), description="of the student and of each round of reflow, in their order")
    memorisation: tuple[MemorisationResult, ...] = Field((), description="of each model's best samples")
    noise_cost: tuple[Score, ...] = Field(
        (), description="scores of the student from N(0, I) and from encoded held-out images; those state their start"
    )
    warnings: tuple[str, ...]


class ReportResult(Result):
    page: str
