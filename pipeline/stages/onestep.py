"""A student trained on the pairs of another, from its weights: over all t (reflow), or to go in few steps (distil).

To go in one step it sees t = 1 alone. There the path's point is the noise itself, so that the network learns the whole
way to the image in one call: x = z - g(z, 1, c). To go in k steps it sees the k times i/k, see
`pipeline.training.segments`.
"""

from __future__ import annotations

import torch

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.engine.dag import student_among
from pipeline.flow_matching.losses import loss_of_config
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import At, times_of_config
from pipeline.outputs import networks
from pipeline.outputs.banks import PAIRS
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import OneStep
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.segments import Segments
from pipeline.training.student import finish, train
from storage.bank import Bank


def run(job: Job) -> StudentResult | None:
    device = prepare(job.compute)
    config: OneStep = job.config
    network = networks.load_network(job.inputs[student_among(job.inputs)]).requires_grad_(True)
    couples = _couples(job)
    fitted = train(job, network, couples, config.training, device, loss=loss_of_config(config.loss, device))
    return finish(job, fitted, config.mode)


def _couples(job: Job) -> FlowBatches | Segments:
    config: OneStep = job.config
    pairs = Bank.open(job.inputs["pairs"].path(PAIRS)).load()
    z, x, labels = pairs["z"], pairs["x"][0], pairs["labels"][0] if "labels" in pairs else None
    if config.steps > 1:
        return Segments(z[0], x, labels, config.steps, config.seed, config.training.batch)
    time = At(1.0) if config.mode == "distil" else times_of_config(config.time)
    return FlowBatches(
        Examples(x, labels), Banked(torch.from_numpy(z)), time, LINEAR, 0.0, config.seed, config.training.batch
    )
