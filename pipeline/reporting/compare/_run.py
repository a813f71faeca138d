"""One recipe at one seed: its scores, what they cost, and what was known before."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from pipeline.outputs.results import BankResult, EvaluationResult, Score, StudentResult, VelocityVariance
from storage.artifact import Artifact
from storage.errors import InputError
from storage.store import PREFIX

# Whose seconds are added up for what: the teacher and its bank, or the potentials, come before any student.
COUPLING, STUDENT, ONESTEP = ("teacher", "bank", "potentials"), ("student",), ("pairs", "onestep")


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Noise(_Plain):
    """Sliced W2 of a coupling's noise to N(0, I), beside what as many samples of true noise score."""

    sliced_w2: float
    floor: float
    held_out: float | None = Field(None, description="of images that the teacher has not seen")
    held_out_floor: float | None = None


class Bits(_Plain):
    """A teacher's bits per dimension: far apart, it has learnt its training images by heart."""

    train: float
    held_out: float


class SeedRun(_Plain):
    """What a comparison takes of a recipe's artifacts, as plain data that JSON keeps in full."""

    recipe: str
    seed: int
    protocol: str = Field(description="digest that the evaluation states, the seed of its noise included")
    floor: float
    floors: dict[str, float] = Field({}, description="two halves of the real images in the other metrics")
    scores: tuple[Score, ...] = Field(min_length=1)
    curvature: float = Field(description="of the student: pipeline.metrics.straightness")
    transport_cost: float = Field(description="E |z - x|^2 per dimension, over training")
    velocity_variance: VelocityVariance | None
    noise: Noise | None
    teacher_bits: Bits | None
    seconds: dict[str, float] = Field(description="by stage")
    resumed: tuple[str, ...] = Field(description="stages whose seconds are those of their last attempt alone")
    machine: str
    fingerprints: dict[str, str]

    def took(self, stages: tuple[str, ...]) -> float | None:
        """Seconds of those of the stages that the run has; None where it has none of them."""
        found = [self.seconds[stage] for stage in stages if stage in self.seconds]
        return sum(found) if found else None

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
                f"SeedRun it: flowctl run {recipe}",
            )
    student = StudentResult.model_validate(artifacts["student"].metrics)
    found = EvaluationResult.model_validate(artifacts["evaluation"].metrics)
    teacher = artifacts["teacher"].metrics if "teacher" in artifacts else None
    made = artifacts["student"].provenance
    return SeedRun(
        recipe=recipe,
        seed=seed,
        protocol=found.protocol,
        floor=found.floor,
        floors=found.floors,
        scores=found.scores,
        curvature=found.curvature,
        transport_cost=student.transport_cost,
        velocity_variance=student.velocity_variance,
        noise=_noise(student, artifacts.get("bank")),
        teacher_bits=teacher and Bits(train=teacher["bits_per_dim_train"], held_out=teacher["bits_per_dim"]),
        seconds={stage: artifact.provenance.wall_seconds for stage, artifact in artifacts.items()},
        resumed=tuple(stage for stage, artifact in artifacts.items() if artifact.provenance.resumed),
        machine=f"{made.device}, {made.threads} thread{'s' if made.threads > 1 else ''}, "
        f"torch {made.packages.get('torch', 'unknown')}",
        fingerprints={stage: artifact.fingerprint[:PREFIX] for stage, artifact in artifacts.items()},
    )


def _noise(student: StudentResult, couplings: Artifact | None) -> Noise | None:
    """The student's own noise where it was measured, else its bank's; held-out images only a teacher can encode."""
    bank = {} if couplings is None else BankResult.model_validate(couplings.metrics).gaussianity
    train, unseen = student.noise_gaussianity or bank.get("train"), bank.get("held_out")
    if not train:
        return None
    return Noise(
        sliced_w2=train["sliced_w2"],
        floor=train["floor"],
        held_out=unseen["sliced_w2"] if unseen else None,
        held_out_floor=unseen["floor"] if unseen else None,
    )
