"""Train a velocity network on the batches that a coupling brings, and write it down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from PIL.Image import Image
from torch import nn

from pipeline.data.batches import FlowBatch
from pipeline.flow_matching.losses import SQUARED, Loss, LpipsHuber
from pipeline.flow_matching.objective import transport_cost, velocity_error
from pipeline.flow_matching.paths import GaussianPath
from pipeline.outputs import networks
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import Training
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from pipeline.training import Fitted, Memory, fit


def finish(job: Job, fitted: Fitted, coupling: str) -> StudentResult | None:
    """Write the trained network and sum up; the first rank does."""
    if not ranks.first():
        return None
    networks.save_network(fitted.network, job.out, fitted.averages)
    training = job.config.training
    return StudentResult(
        images_seen=training.images,
        steps=training.steps,
        loss=fitted.loss,
        parameters=fitted.parameters,
        coupling=coupling,
        transport_cost=fitted.totals["cost"] / fitted.totals["pairs"],
    )


class Stream(Memory, Protocol):
    """A batch for each step, on a path: `pipeline.training.flow_batches.FlowBatches`, or segments."""

    path: GaussianPath

    def __call__(self, step: int) -> FlowBatch: ...


def train(
    job: Job,
    network: nn.Module,
    couples: Stream,
    training: Training,
    device: torch.device,
    picture: Callable[[nn.Module], Image] | None = None,
    loss: Loss = SQUARED,
) -> Fitted:
    """Fit `network` to the velocities that `couples` bring. Resumes as `pipeline.training.fit` does.

    By LPIPS a GPU ends a resumed training with slightly other weights: torch resizes and pools images by atomic
    additions there, on the way back.
    """
    return fit(
        job,
        network,
        couples,
        partial(velocity_error, path=couples.path, loss=loss),
        training,
        device,
        measure=transport_cost,
        picture=picture,
        memory=couples,
        repeatable=not isinstance(loss, LpipsHuber),
    )
