"""A student trained on the pairs of another, from its weights: over all t (reflow), or to go in few steps (distil).

To go in one step it sees t = 1 alone. There the path's point is the noise itself, so that the network learns the whole
way to the image in one call: x = z - g(z, 1, c). To go in k steps it sees the k times i/k: see `pipeline.segments`.
"""

from __future__ import annotations

import torch

from pipeline import flow_matching, networks
from pipeline.configs import OneStep
from pipeline.couples import CoupleStream
from pipeline.couplings import Banked
from pipeline.dag import student_among
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.losses import make_loss
from pipeline.paths import LINEAR
from pipeline.results import StudentResult
from pipeline.runtime import prepare
from pipeline.segments import Segments
from pipeline.stages.pairs import PAIRS
from pipeline.stages.student import finish
from pipeline.times import At, time_distribution
from storage.bank import Bank


def run(job: Job) -> StudentResult | None:
    device = prepare(job.compute)
    config: OneStep = job.config
    network = networks.load_network(job.inputs[student_among(job.inputs)]).requires_grad_(True)
    couples = _couples(job)
    fitted = flow_matching.train(job, network, couples, config.training, device, loss=make_loss(config.loss, device))
    return finish(job, fitted, config.mode)


def _couples(job: Job) -> CoupleStream | Segments:
    config: OneStep = job.config
    pairs = Bank.open(job.inputs["pairs"].path(PAIRS)).load()
    z, x, labels = pairs["z"], pairs["x"][0], pairs["labels"][0] if "labels" in pairs else None
    if config.steps > 1:
        return Segments(z[0], x, labels, config.steps, config.seed, config.training.batch)
    time = At(1.0) if config.mode == "distil" else time_distribution(dict(config.time))
    return CoupleStream(Examples(x, labels), Banked(torch.from_numpy(z)), time, LINEAR, 0.0, config.seed,
                        config.training.batch)
