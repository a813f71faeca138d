"""Train a velocity network on the batches of a coupling, and write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from PIL.Image import Image
from torch import nn

from pipeline.data.batches import FlowBatch
from pipeline.flow_matching.losses import SQUARED
from pipeline.flow_matching.objective import FlowMatching, Objective, transport_cost
from pipeline.flow_matching.paths import GaussianPath
from pipeline.outputs import networks
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import Training
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from pipeline.training import BatchState, Fitted, Watch, fit


class Batches(BatchState, Protocol):
    """The batch of each step, on a path: `pipeline.training.flow_batches.FlowBatches`, or `segments.Segments`."""

    @property
    def path(self) -> GaussianPath: ...

    def __call__(self, step: int) -> FlowBatch: ...


def train(
    job: Job,
    network: nn.Module,
    batches: Batches,
    training: Training,
    device: torch.device,
    picture: Callable[[nn.Module], Image] | None = None,
    objective: Objective | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Fit `network` to the batches, by flow matching unless another objective is given.

    Resumes and raises as `pipeline.training.fit` does. With a loss that is not `repeatable` a GPU ends a resumed
    training with slightly different weights.
    """
    return fit(
        job,
        network,
        batches,
        objective or FlowMatching(batches.path),
        training,
        device,
        measure=transport_cost,
        picture=picture,
        memory=batches,
        repeatable=getattr(objective, "loss", SQUARED).repeatable,
        watch=watch,
    )


def finish(job: Job, fitted: Fitted, coupling: str) -> StudentResult | None:
    """Write the trained network and return its result; None on all ranks but the first."""
    if not ranks.first():
        return None
    best = {networks.BEST: fitted.best_network()} if fitted.best else {}
    networks.save_network(fitted.network, job.out, fitted.averages | best)
    training = job.config.training
    return StudentResult(
        images_seen=training.images,
        steps=training.steps,
        loss=fitted.loss,
        parameters=fitted.parameters,
        coupling=coupling,
        transport_cost=fitted.totals["cost"] / fitted.totals["pairs"],
    )
