"""The student: a velocity network trained on the path that the recipe's coupling chooses."""

from __future__ import annotations

import logging

import torch

from pipeline import flow_matching, networks
from pipeline.configs import Student
from pipeline.couplings import Banked, Coupling, Independent, MinibatchOT
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.results import StudentResult
from pipeline.runtime import derive, prepare
from pipeline.stages.couplings import BANK
from pipeline.stages.data import IMAGES
from pipeline.times import time_distribution
from pipeline.training import Fitted
from storage.bank import Bank
from storage.errors import DamageError
from storage.imageset import ImageSet

log = logging.getLogger(__name__)


def run(job: Job) -> StudentResult:
    device = prepare(job.compute)
    config: Student = job.config
    data = job.inputs["data"]
    images = ImageSet.open(data.path(IMAGES))
    examples = Examples(images.train.images, images.train.labels, images.levels, data.config["flips"])
    network = networks.build(networks.student_shape(config.network, images), derive(config.seed, "student", "weights"))
    fitted = flow_matching.train(job, network, examples, choose_coupling(job), time_distribution(dict(config.time)),
                                 config.label_drop, config.training, device)
    return finish(job, fitted, config.coupling)


def choose_coupling(job: Job) -> Coupling:
    """The object that is asked for z."""
    if job.config.coupling == "independent":
        return Independent()
    if job.config.coupling == "ot":
        return MinibatchOT()
    artifact = job.inputs["couplings"]
    bank = Bank.open(artifact.path(BANK))
    if bank.facts.producer != artifact.inputs["teacher"]:
        raise DamageError(str(artifact.path(BANK)), "it was made by another teacher than its manifest names",
                          "Run with --force couplings to make it anew")
    for warning in artifact.metrics["warnings"]:
        log.warning("couplings: %s", warning)
    return Banked(torch.from_numpy(bank.load()["z"]))


def finish(job: Job, fitted: Fitted, coupling: str) -> StudentResult:
    """Write the trained network and sum up."""
    networks.save_network(fitted.network, job.out)
    training = job.config.training
    return StudentResult(images_seen=training.images, steps=training.steps, loss=fitted.loss,
                         parameters=fitted.parameters, coupling=coupling,
                         transport_cost=fitted.totals["cost"] / fitted.totals["pairs"])
