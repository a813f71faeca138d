"""What `flowctl sample` is asked for: a network and its sampler, checked against the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from pipeline.flow_matching.solvers import SOLVERS, FixedStep
from pipeline.recipe.load import nearest
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import Solver, calls_of_a_step, check_before_end
from storage.errors import UsageError
from storage.required import required

STEPS = 8  # of a student, unless it is asked for others
FIXED_STEP = tuple(name for name, kind in SOLVERS.items() if issubclass(kind, FixedStep))


@dataclass(frozen=True)
class SampleRequest:
    """The network and its sampler.

    `solver` None means Euler, or jump for MeanFlow; `steps` None means 8, for onestep its trained number. `class_` is
    the name or number of one class, or of a class for each image. `nfe` is the number of network calls, in place of
    `steps`.
    """

    model: str
    steps: int | None
    solver: str | None
    class_: str | Sequence[str] | None
    guidance: float | None
    seed: int
    count: int
    ema: str | None = None  # name of an average of the weights; None is the first
    nfe: int | None = None

    @property
    def weight(self) -> float:
        """Of a student's guidance; 1 where none is asked for."""
        return 1.0 if self.guidance is None else self.guidance


def check_sampler(request: SampleRequest, recipe: Recipe) -> None:
    """Raises UsageError for an option that the network ignores, or a sampler that it was not trained for."""
    if request.guidance is not None and not 0 <= request.guidance < math.inf:
        raise UsageError("--guidance must be a number >= 0", f"{request.guidance:g}", "Correct it.")
    if request.solver is not None and request.solver not in FIXED_STEP:
        raise UsageError("--solver must be a fixed-step solver", request.solver, nearest(request.solver, FIXED_STEP))
    if request.model == "teacher":
        if (request.steps, request.nfe, request.solver) != (None, None, None):
            raise UsageError("A teacher has no ODE solver", _given(request), "Omit --steps and --solver.")
        if request.guidance and required(recipe.teacher, "the teacher").label_drop == 0 and recipe.data.labels:
            raise UsageError(
                "Guidance needs a teacher trained without labels too (teacher.label_drop > 0)",
                f"--guidance {request.guidance:g}",
                "Omit --guidance.",
            )
        return
    if request.solver == "jump" and solver_of(request.model, recipe) != "jump":
        remedy = {
            "student": "Train with student.objective=meanflow",
            "onestep": "Train with onestep.mode=meanflow",
        }.get(request.model, "Omit --solver")
        raise UsageError("The solver jump needs a student of average velocities", request.model, remedy)
    onestep = recipe.onestep if request.model == "onestep" else None
    steps = {request.steps, request.nfe} - {None, onestep and onestep.steps}
    if onestep and onestep.mode == "distil" and (steps or request.solver not in (None, "euler")):
        raise UsageError(
            f"A student distilled to {onestep.steps} Euler step{'s' * (onestep.steps > 1)} must be sampled so",
            _given(request),
            "Omit --steps and --solver.",
        )
    if request.model == "student" and recipe.student.path.kind == "vp":
        _check_before_end(request, solver_of(request.model, recipe))
    if request.guidance in (None, 1):
        return
    if request.model == "student" and recipe.student.objective.guided:
        raise UsageError(
            "The student's average velocities are guided already (student.objective.guidance)",
            f"--guidance {request.guidance:g}",
            "Omit --guidance.",
        )
    if request.model != "student":
        raise UsageError(
            "Guidance needs a network trained without labels too, and students of pairs are not",
            f"--guidance {request.guidance:g}",
            "Omit --guidance.",
        )
    if recipe.student.label_drop == 0:
        raise UsageError(
            "Guidance needs a network trained without labels too (student.label_drop > 0)",
            f"--guidance {request.guidance:g} with student.label_drop 0",
            "Omit --guidance.",
        )


def check_guidance_acts(request: SampleRequest, recipe: Recipe) -> None:
    """Raises UsageError for guidance of images without classes, unless an attention temperature acts in their place."""
    teacher = recipe.teacher if request.model == "teacher" else None
    if request.guidance in (None, 0 if teacher else 1) or (teacher and teacher.attention_temperature != 1):
        return
    need, got = "Guidance goes from any class to one, and these images have none", f"--guidance {request.guidance:g}"
    raise UsageError(need, got, "Omit --guidance.")


def _check_before_end(request: SampleRequest, usual: Solver) -> None:
    solver, weight = cast(Solver, request.solver or usual), request.weight
    try:
        check_before_end(solver, weight, request.nfe or (request.steps or STEPS) * calls_of_a_step(solver, weight))
    except ValueError:
        remedy = "Choose euler or midpoint."
        raise UsageError("On the path vp no solver may evaluate the velocity at t = 0", solver, remedy) from None


def _given(request: SampleRequest) -> str:
    given = {"--steps": request.steps, "nfe": request.nfe, "--solver": request.solver}
    return " ".join(f"{name} {value}" for name, value in given.items() if value is not None)


def solver_of(model: str, recipe: Recipe) -> Solver:
    """The solver of a model unless another one is asked for."""
    jumps = {"student": recipe.student.objective.kind, "onestep": recipe.onestep and recipe.onestep.mode}
    return "jump" if jumps.get(model) == "meanflow" else "euler"
