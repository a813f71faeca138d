"""A rehearsal: the same recipe with every network at full size and next to no work, to find what would fail later."""

from __future__ import annotations

from typing import Any

from pipeline.configs import Training, calls_of_a_step
from pipeline.recipe import Recipe

BATCH, IMAGES, SAMPLES = 4, 32, 32


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
            "onestep": _fewest(recipe.evaluation.onestep), "reflow": _fewest(recipe.evaluation.reflow),
            "teacher": False}),
        "reflow": tuple(_one_step(this).model_copy(update={"pairs": _few(this.pairs)}) for this in recipe.reflow),
    }
    if recipe.teacher and recipe.couplings:
        # Sequential decoding of one picture: calibration would try every schedule on networks of full size.
        changes["teacher"] = _one_step(recipe.teacher).model_copy(update={"decoding": "sequential", "shown": 1})
        changes["couplings"] = recipe.couplings.model_copy(update={"draws": 1})
    if recipe.pairs and recipe.onestep:
        changes["pairs"] = _few(recipe.pairs, recipe.onestep.steps)
        changes["onestep"] = _one_step(recipe.onestep)
    return recipe.model_copy(update=changes)


def _few(pairs: Any, steps: int = 1) -> Any:
    """Hardly any pairs, by the fewest calls that pass the ends of so many even steps."""
    calls = None if pairs.nfe is None else steps * calls_of_a_step(pairs.solver, pairs.guidance)
    return pairs.model_copy(update={"count": SAMPLES, "nfe": calls})


def _one_step(section: Any) -> Any:
    training: Training = section.training
    return section.model_copy(update={"training": training.model_copy(
        update={"images": BATCH, "batch": BATCH, "accumulate": 1, "warmup": 0})})


def _fewest(sweeps: tuple) -> tuple:
    return tuple(sweep.model_copy(update={"nfe": (calls_of_a_step(sweep.solver, sweep.guidance),)})
                 for sweep in sweeps if sweep.nfe)
