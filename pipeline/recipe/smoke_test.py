"""The smoke test: a recipe with every network at full size and little work, to find early what would fail late."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import FEWEST, Data, Training, calls_of_a_step
from pipeline.recipe.sweep import stem

BATCH, SAMPLES = 4, 32  # of each process; of all
IMAGES = 2 * max(FEWEST.values())  # of which each metric compares two halves


def reduced(recipe: Recipe, whole_batches: bool = False, steps: int = 1) -> Recipe:
    """The recipe reduced: few optimizer steps of each network on a few images, one draw, the fewest calls.

    Architectures, couplings, solvers and all stages stay as they are. With `whole_batches` batches do too, of training
    and of sampling, to check that their memory suffices and to measure how fast they are.
    """
    samples = recipe.compute.inference_batch if whole_batches else SAMPLES
    sections: list[Any] = [recipe.teacher, recipe.student, *recipe.reflow, recipe.onestep]
    images = max(section.training.batch for section in sections if section) if whole_batches else IMAGES
    step = partial(_few_steps, steps=steps, batch=None if whole_batches else BATCH * recipe.compute.world)
    changes: dict[str, Any] = {
        "name": f"{stem(recipe.name)[:50]}-smoke-test",
        "data": _limited(recipe.data, images),
        "student": step(recipe.student).model_copy(update={"quality": _small(recipe.student.quality, samples)}),
        "evaluation": recipe.evaluation.model_copy(
            update={
                "samples": samples,
                "student": _fewest(recipe.evaluation.student),
                "onestep": _fewest(recipe.evaluation.onestep),
                "reflow": _fewest(recipe.evaluation.reflow),
                "teacher": False,
            }
        ),
        "reflow": tuple(step(this).model_copy(update={"pairs": _few(this.pairs, samples)}) for this in recipe.reflow),
    }
    if recipe.teacher and recipe.bank:
        # Sequential decoding of one picture: calibration would try every schedule on networks of full size.
        changes["teacher"] = step(recipe.teacher).model_copy(update={"decoding": "sequential", "preview_samples": 1})
        changes["bank"] = recipe.bank.model_copy(update={"draws_per_image": 1})
    if recipe.pairs and recipe.onestep:
        changes["pairs"] = _few(recipe.pairs, samples, recipe.onestep.steps)
        changes["onestep"] = step(recipe.onestep)
    return recipe.model_copy(update=changes)


def _limited(data: Data, images: int) -> Data:
    """The data of at most this many images: classes that get none by that are dropped, and those that never had any are
    refused, as they will be."""
    if data.limit is not None and data.limit <= images:
        return data
    small = "drop" if data.small_classes == "drop" else "drop-limited"
    return data.model_copy(update={"limit": images, "small_classes": small})


def _few(pairs: Any, count: int, steps: int = 1) -> Any:
    """Few pairs, by the fewest calls that contain the ends of `steps` even steps."""
    calls = None if pairs.nfe is None else steps * calls_of_a_step(pairs.solver, pairs.guidance)
    return pairs.model_copy(update={"count": count, "nfe": calls})


def _small(quality: Any, samples: int) -> Any:
    """The student's scores while it trains, of few samples by the fewest calls."""
    if quality is None or quality.nfe is None:
        return quality and quality.model_copy(update={"samples": samples})
    calls = calls_of_a_step(quality.solver, quality.guidance)
    return quality.model_copy(update={"samples": samples, "nfe": calls})


def _few_steps(section: Any, steps: int, batch: int | None) -> Any:
    """The section with `steps` optimizer steps of `batch` images; with None its batch and parts stay."""
    training: Training = section.training
    size = {"batch": batch, "accumulate": 1} if batch else {}
    return section.model_copy(
        update={
            "training": training.model_copy(update={"images": steps * (batch or training.batch), "warmup": 0, **size})
        }
    )


def _fewest(sweeps: tuple) -> tuple:
    """Each sampler with one number of calls, the fewest; an adaptive one chooses its own."""
    return tuple(
        sweep.model_copy(update={"nfe": (calls_of_a_step(sweep.solver, sweep.guidance),)}) if sweep.nfe else sweep
        for sweep in sweeps
    )
