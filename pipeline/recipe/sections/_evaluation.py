"""The section evaluation: metrics, samplers and numbers of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.recipe.fingerprint import AddedLater
from pipeline.recipe.sections._base import ADAPTIVE, Config, Grid, Positive, Seeded, Solver, Temperature, check_calls

Metric = Literal["kid", "precision-recall", "inception-score", "sliced-wasserstein"]
#: Features that a metric needs on either side.
FEWEST: Mapping[str, int] = {"kid": 20, "precision-recall": 6, "inception-score": 1, "sliced-wasserstein": 2}


class Sweep(Config):
    """One line of the evaluation: a solver on a grid at several numbers of network calls.

    In a recipe `guidance`, `temperature` and `ema` may be lists: they stand for a sweep of each combination.
    """

    solver: Solver = Field("euler", description="of the ODE")
    grid: Grid = "uniform"
    nfe: tuple[Positive, ...] = Field((), description="network calls; leave it out for dopri5, which chooses them")
    guidance: float = Field(1.0, ge=0, description="weight of classifier-free guidance; 1 for none")
    temperature: Annotated[Temperature, AddedLater(1.0)] = 1.0
    ema: Annotated[str | None, AddedLater(None)] = Field(
        None,
        description="which average of the weights: a name in training.averages, such as power-0.05; or best, by "
        "student.quality",
    )

    @model_validator(mode="after")
    def _calls_where_they_can_be_chosen(self) -> Sweep:
        if (self.solver == ADAPTIVE) == bool(self.nfe):
            raise ValueError(f"nfe lists the numbers of calls of a fixed-step solver, and is left out for {ADAPTIVE}")
        return self


class Likelihood(Config):
    """Bits per dimension of held-out images under the student's ODE."""

    images: int = Field(256, ge=2, description="images of the test split, at most; two or more, for the error")
    probes: int = Field(
        4, ge=2, description="probes of Hutchinson's estimate of the divergence; two or more, for its error"
    )
    tolerance: float = Field(1e-3, ge=1e-9, lt=1, description="of dopri5, relative and absolute")


class Evaluation(Seeded):
    """Frechet distance against NFE, and further metrics."""

    samples: int = Field(ge=16, description="generated images of each sampler")
    student: tuple[Sweep, ...] = Field(min_length=1, description="samplers of the student")
    onestep: tuple[Sweep, ...] = Field((), description="samplers of the one-step student")
    teacher: bool = Field(True, description="also measure the teacher's samples")
    likelihood: Annotated[Likelihood | None, AddedLater(None)] = Field(
        None, description="bits per dimension of the student; off unless given"
    )
    reflow: Annotated[tuple[Sweep, ...], AddedLater(())] = Field(
        (), description="samplers of the student of every round of reflow"
    )
    metrics: Annotated[tuple[Metric, ...], AddedLater(())] = Field(
        (),
        description="next to the Frechet distance, on the same samples; all but inception-score keep at most 10,000 "
        "features of each side, 82 MB of Inception's",
    )

    noise_cost: Annotated[bool, AddedLater(False)] = Field(
        False,
        description="also sample the student from encoded held-out images: the cost in scores of N(0, I) not being "
        "the law of z",
    )

    def sweeps_of(self, model: str) -> tuple[Sweep, ...]:
        """The samplers of a network by its stage: every round of reflow has the same, a teacher has none."""
        return {"teacher": (), "student": self.student, "onestep": self.onestep}.get(model, self.reflow)

    @property
    def from_encoded(self) -> tuple[Sweep, ...]:
        """The student's samplers from encoded noise, which is what it is: each once, whatever its temperatures."""
        sweeps: dict[Sweep, dict[int, None]] = {}
        for sweep in self.student:
            plain = sweep.model_copy(update={"temperature": 1.0, "nfe": ()})
            sweeps.setdefault(plain, {}).update(dict.fromkeys(sweep.nfe))
        return tuple(plain.model_copy(update={"nfe": tuple(calls)}) for plain, calls in sweeps.items())

    def of_noise(self, held_out: int) -> int:
        """How many samples `noise_cost` takes from either start: one half of the held-out images is encoded, and the
        other compared with."""
        return min(self.samples, held_out // 2)

    @field_validator("student", "onestep", "reflow", mode="before")
    @classmethod
    def _products(cls, sweeps: Any) -> Any:
        """Lists written out: by average, then by guidance, then by temperature."""
        if isinstance(sweeps, str) or not isinstance(sweeps, Sequence):
            return sweeps
        return [one for sweep in sweeps for one in _spelt_out(sweep)]

    @model_validator(mode="after")
    def _each_sampler_once(self) -> Evaluation:
        for name, sweeps in (("student", self.student), ("onestep", self.onestep), ("reflow", self.reflow)):
            seen = set()
            for sweep in sweeps:
                for nfe in sweep.nfe or (None,):
                    grid = "uniform" if sweep.solver == ADAPTIVE else sweep.grid
                    sampler = (sweep.model_copy(update={"nfe": (), "grid": grid}), nfe)
                    if sampler in seen:
                        calls = "" if nfe is None else f" at {nfe} network call{'s' * (nfe > 1)}"
                        raise ValueError(
                            f"evaluation.{name} must list each sampler once: {sweep.solver}{calls} is there twice, "
                            "with all else alike"
                        )
                    seen.add(sampler)
        return self

    @model_validator(mode="after")
    def _calls_that_can_be_made(self) -> Evaluation:
        for sweep in (*self.student, *self.onestep, *self.reflow):
            for nfe in sweep.nfe:
                check_calls(sweep.solver, sweep.guidance, nfe)
        return self

    @model_validator(mode="after")
    def _metrics_have_enough(self) -> Evaluation:
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("evaluation.metrics must name each metric once")
        for metric in self.metrics:
            if self.samples < FEWEST[metric]:
                raise ValueError(f"{metric} needs {FEWEST[metric]} samples or more: raise evaluation.samples")
        return self


def _spelt_out(sweep: Any) -> list[Any]:
    """A sweep as it is given, or one for each pair of its lists."""
    if not isinstance(sweep, Mapping):
        return [sweep]
    lists = {key: sweep[key] for key in ("ema", "guidance", "temperature") if isinstance(sweep.get(key), (list, tuple))}
    if any(not values for values in lists.values()):
        raise ValueError(
            f"a list of {', '.join(lists)} must have one value or more: leave the field out for the default"
        )
    return [{**sweep, **dict(zip(lists, values, strict=True))} for values in product(*lists.values())]
