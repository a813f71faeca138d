"""Each model's best samples against their nearest training images: whether images were copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from pipeline.evaluation.figures import Figures
from pipeline.evaluation.gallery import Gallery
from pipeline.evaluation.neighbours import TrainingSetNeighbours
from pipeline.evaluation.samplers import ENLARGED
from pipeline.evaluation.scored import Scored
from pipeline.metrics.neighbours import judged
from pipeline.outputs.results import MemorisationResult
from pipeline.recipe.sections import Evaluation
from pipeline.runtime.job import Job


def best_of(scored: Sequence[Scored]) -> list[Scored]:
    """Each network's samples of the least Frechet distance to the training images; the first of equal ones."""
    best: dict[str, Scored] = {}
    for item in scored:
        model = item.sampler.model
        if model == ENLARGED:
            continue
        if model not in best or item.scores[0].value < best[model].scores[0].value:
            best[model] = item
    return list(best.values())


def memorisation_of(
    job: Job[Evaluation], best: Sequence[Scored], gallery: Gallery, figures: Figures, device: torch.device
) -> list[MemorisationResult]:
    """Each model's best samples against their nearest training images, with the held-out images as yardstick."""

    def progress(done: int, total: int) -> None:
        job.progress(done, total, "training images compared")
        job.pause_point()

    training = TrainingSetNeighbours(gallery.images.originals, job.inputs["data"].config["flips"], device, progress)
    held_out = torch.tensor(
        figures.numbers("neighbours-held-out", lambda: {"distances": training.held_out().tolist()})["distances"]
    )

    def compared(item: Scored) -> dict[str, Any]:
        distances, rows = training.nearest(item.samples())
        return {"distances": distances.tolist(), "rows": rows.tolist()}

    neighbours, results = [], []
    for item in best:
        nearest = figures.numbers(f"neighbours-{item.sampler.model}", partial(compared, item))
        distances = torch.tensor(nearest["distances"])
        neighbours.append((item, distances, torch.tensor(nearest["rows"])))
        comparison = judged(distances, held_out)
        results.append(
            MemorisationResult(
                model=item.sampler.model,
                solver=item.sampler.solver,
                nfe=item.scores[0].nfe,
                **asdict(comparison),
                generated=len(distances),
                real=len(held_out),
                train=len(training.train),
            )
        )
    figures.picture("neighbours.png", partial(gallery.neighbours, neighbours, training.train))
    return results
