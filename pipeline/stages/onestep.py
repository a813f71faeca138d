"""A student trained on the pairs of another, from its weights: over all t (reflow), or at t = 1 alone (distillation).

At t = 1 the path's point is the noise itself, so that the network learns the whole way to the image in one call:
x = z - g(z, 1, c).
"""

from __future__ import annotations

import torch

from pipeline import flow_matching, networks
from pipeline.configs import OneStep
from pipeline.couples import CoupleStream
from pipeline.couplings import Banked
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.paths import LINEAR
from pipeline.results import StudentResult
from pipeline.runtime import prepare
from pipeline.stages.pairs import PAIRS
from pipeline.stages.student import finish
from pipeline.times import At, time_distribution
from storage.bank import Bank


def run(job: Job) -> StudentResult | None:
    device = prepare(job.compute)
    config: OneStep = job.config
    network = networks.load_network(job.inputs["student"]).requires_grad_(True)
    pairs = Bank.open(job.inputs["pairs"].path(PAIRS)).load()
    labels = pairs.get("labels")
    examples = Examples(pairs["x"][0], None if labels is None else labels[0])
    time = At(1.0) if config.mode == "distil" else time_distribution(dict(config.time))
    couples = CoupleStream(examples, Banked(torch.from_numpy(pairs["z"])), time, LINEAR, 0.0, config.seed,
                           config.training.batch)
    fitted = flow_matching.train(job, network, couples, config.training, device)
    return finish(job, fitted, config.mode)
