"""A rehearsal: the same recipe with every network at full size and next to no work, to find what would fail later."""

from __future__ import annotations

from typing import Any

from pipeline.configs import Training
from pipeline.recipe import Recipe

BATCH, IMAGES, SAMPLES = 4, 32, 16
ONE_STEP = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}  # calls of a solver's one step


def rehearse(recipe: Recipe) -> Recipe:
    """The recipe cut down: one optimizer step of each network on a few images, one draw, the fewest calls.

    Architectures, couplings, solvers and all stages stay as they are.
    """
    changes: dict[str, Any] = {
        "name": f"{recipe.name[:50]}-rehearsal",
        "data": recipe.data.model_copy(update={"limit": min(recipe.data.limit or IMAGES, IMAGES)}),
        "student": _one_step(recipe.student),
        "evaluation": recipe.evaluation.model_copy(update={
            "samples": SAMPLES, "student": _fewest(recipe.evaluation.student),
            "onestep": _fewest(recipe.evaluation.onestep), "teacher": False}),
    }
    if recipe.teacher and recipe.couplings:
        # Sequential decoding of one picture: calibration would try every schedule on networks of full size.
        changes["teacher"] = _one_step(recipe.teacher).model_copy(update={"decoding": "sequential", "shown": 1})
        changes["couplings"] = recipe.couplings.model_copy(update={"draws": 1})
    if recipe.pairs and recipe.onestep:
        changes["pairs"] = recipe.pairs.model_copy(update={"count": SAMPLES, "nfe": 2})
        changes["onestep"] = _one_step(recipe.onestep)
    return recipe.model_copy(update=changes)


def _one_step(section: Any) -> Any:
    training: Training = section.training
    return section.model_copy(update={"training": training.model_copy(
        update={"images": BATCH, "batch": BATCH, "accumulate": 1, "warmup": 0})})


def _fewest(sweeps: tuple) -> tuple:
    return tuple(sweep.model_copy(update={"nfe": (ONE_STEP[sweep.solver],)}) for sweep in sweeps if sweep.nfe)
