"""One recipe at one seed: its scores, their cost, and the statistics of its coupling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.engine.dag import sampled_among, students_among
from pipeline.outputs.results import BankResult, EvaluationResult, ProbeResult, Score, StudentResult, VelocityVariance
from pipeline.recipe.recipe import PAIRS_OF
from pipeline.reporting.text.numbers import plain
from storage.artifact import Artifact
from storage.checksummed_json import json_digest
from storage.errors import InputError
from storage.store import PREFIX

OF_PROTOCOLS = ("images", "ema", "averages")  # settings of a training that scores state themselves
# Whose seconds are added up for what: the teacher and its bank, or the potentials, come before any student.
COUPLING, STUDENT, ONESTEP = ("teacher", "bank", "potentials"), ("student",), ("pairs", "onestep")


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Noise(_Plain):
    """Sliced W2 of a coupling's noise to N(0, I); `floor` is that of as many Gaussian samples."""

    sliced_w2: float
    floor: float
    held_out: float | None = Field(None, description="of images that the teacher has not seen")
    held_out_floor: float | None = None


class Bits(_Plain):
    """A teacher's bits per dimension; far apart where it has memorised its training images."""

    train: float
    held_out: float


class SeedRun(_Plain):
    """A comparison's data of a recipe's artifacts, plain for JSON."""

    recipe: str
    seed: int
    protocol: str = Field(description="digest that the evaluation states, the seed of its noise included")
    floor: float
    floors: dict[str, float] = Field({}, description="two halves of the real images in the other metrics")
    held_out: dict[str, float] = Field({}, description="held-out to training images by metric: the yardstick")
    scores: tuple[Score, ...] = Field(min_length=1)
    curvature: float = Field(description="of the student: pipeline.metrics.straightness")
    transport_cost: float = Field(description="E |z - x|^2 per dimension, over training")
    velocity_variance: VelocityVariance | None
    class_leak: ProbeResult | None = Field(None, description="the class predicted from z alone")
    noise: Noise | None
    teacher_bits: Bits | None
    seconds: dict[str, float] = Field(description="by stage")
    resumed: tuple[str, ...] = Field(description="stages whose seconds are those of their last attempt alone")
    machine: str
    fingerprints: dict[str, str]
    trained: dict[str, dict[str, str]] = Field({}, description="network and settings of each student's training")

    def took(self, stages: tuple[str, ...]) -> float | None:
        """Seconds of those of the stages that the run has; None where it has none of them."""
        seconds = [self.seconds[stage] for stage in stages if stage in self.seconds]
        return sum(seconds) if seconds else None

    def training_seconds(self, model: str) -> float:
        """All that must run before `model` can be sampled: teacher, bank or potentials, student, pairs and rounds."""
        rounds = students_among(self.seconds)[1:]
        if model in rounds:
            rounds = rounds[: rounds.index(model) + 1]
        elif model != "onestep":
            rounds = []
        stages = [*COUPLING, *STUDENT, *rounds, *(PAIRS_OF[name] for name in rounds)]
        return self.took((*stages, *(ONESTEP if model == "onestep" else ()))) or 0.0

    @property
    def noise_seed(self) -> object:
        """The seed that its samples started from."""
        return self.scores[0].protocol.get("seed")


def run_of(recipe: str, seed: int, artifacts: Mapping[str, Artifact]) -> SeedRun:
    """A run from its artifacts by stage: student and evaluation, and those of other stages that are still there.

    Raises InputError where one of the two is missing.
    """
    for stage in ("student", "evaluation"):
        if stage not in artifacts:
            raise InputError(
                "A comparison needs a student and its evaluation",
                f"{recipe} without its {stage}",
                f"Run: flowctl run {recipe}.",
            )
    student = StudentResult.model_validate(artifacts["student"].metrics)
    result = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    teacher = artifacts["teacher"].metrics if "teacher" in artifacts else None
    provenance = artifacts["student"].provenance
    return SeedRun(
        recipe=recipe,
        seed=seed,
        protocol=result.protocol,
        floor=result.floor,
        floors=result.floors,
        held_out=result.held_out,
        scores=result.scores,
        curvature=result.curvature,
        transport_cost=student.transport_cost,
        velocity_variance=student.velocity_variance,
        class_leak=student.class_leak,
        noise=_noise(student, artifacts["student"].config["coupling"], artifacts.get("bank")),
        teacher_bits=teacher and Bits(train=teacher["bits_per_dim_train"], held_out=teacher["bits_per_dim"]),
        seconds={stage: artifact.provenance.wall_seconds for stage, artifact in artifacts.items()},
        resumed=tuple(stage for stage, artifact in artifacts.items() if artifact.provenance.resumed),
        machine=f"{provenance.device}, {provenance.threads} thread{'s' if provenance.threads > 1 else ''}, "
        f"torch {provenance.packages.get('torch', 'unknown')}",
        fingerprints={stage: artifact.fingerprint[:PREFIX] for stage, artifact in artifacts.items()},
        trained={stage: _trained(artifacts[stage]) for stage in sampled_among(artifacts)},
    )


def _trained(artifact: Artifact) -> dict[str, str]:
    """What a fair comparison holds equal and no protocol states: the network, and how it was trained."""
    config = artifact.config
    words = {"network": f"{plain(artifact.metrics['parameters'])} parameters"}
    if "network" in config:
        words["network"] += f", settings {json_digest(config['network'])[:8]}"
    training = {f"training.{name}": value for name, value in config["training"].items() if name not in OF_PROTOCOLS}
    return words | {name: plain(value) for name, value in training.items()}


def _noise(student: StudentResult, coupling: Mapping[str, Any], bank: Artifact | None) -> Noise | None:
    """The student's own noise where it was measured, else its bank's; held-out images only a teacher can encode."""
    measured = {} if bank is None else BankResult.model_validate(bank.metrics).gaussianity
    train, unseen = student.noise_gaussianity or measured.get("train"), measured.get("held_out")
    if not train:
        return None
    if coupling.get("soften") or coupling.get("independent"):
        unseen = None  # it is as encoded, and the student's is not
    return Noise(
        sliced_w2=train["sliced_w2"],
        floor=train["floor"],
        held_out=unseen["sliced_w2"] if unseen else None,
        held_out_floor=unseen["floor"] if unseen else None,
    )
