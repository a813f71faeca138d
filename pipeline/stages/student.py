"""The student: a velocity network trained on the couples that the recipe's coupling chooses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL.Image import Image
from torch import nn

from pipeline import flow_matching, networks, ranks
from pipeline.configs import Student, Sweep
from pipeline.couples import CoupleStream
from pipeline.examples import Examples
from pipeline.job import Job
from pipeline.pairing import choose_coupling
from pipeline.paths import GaussianPath, gaussian_path
from pipeline.pictures import labelled_rows
from pipeline.results import StudentResult
from pipeline.runtime import derive, prepare
from pipeline.sampling import class_labels, starting_noise, student_samples
from pipeline.stages.data import IMAGES, decoder
from pipeline.times import time_distribution
from pipeline.training import Fitted
from storage.atomic import write_json
from storage.imageset import ImageSet

SHOWN = 20  # samples in the picture of a checkpoint
GLANCE = Sweep(solver="euler", nfe=(8,))  # how they are sampled


def run(job: Job) -> StudentResult | None:
    device = prepare(job.compute)
    config: Student = job.config
    data = job.inputs["data"]
    images = ImageSet.open(data.path(IMAGES))
    examples = Examples(images.train.images, images.train.labels, images.levels, data.config["flips"])
    network = networks.build(networks.student_shape(config.network, images), derive(config.seed, "student", "weights"))
    path = gaussian_path(config.path.model_dump())
    couples = CoupleStream(examples, choose_coupling(job, examples, device), time_distribution(dict(config.time)), path,
                           config.label_drop, config.seed, config.training.batch,
                           getattr(config.coupling, "batch", None))
    fitted = flow_matching.train(job, network, couples, config.training, device, glance(job, images, path, device))
    if ranks.first() and couples.epochs:
        write_json(job.out / "epochs.json", couples.epochs)
    return finish(job, fitted, config.coupling.kind)


def glance(job: Job, images: ImageSet, path: GaussianPath, device: torch.device) -> Callable[[nn.Module], Image]:
    """A function that draws samples of a network in training, always of the same noise."""
    decode = decoder(job.inputs["data"], device)
    rows = torch.arange(SHOWN)
    labels = class_labels(rows, len(images.classes or ()), device)
    z = starting_noise(derive(job.config.seed, "glance"), rows, images.shape, device)
    how = GLANCE

    def picture(network: nn.Module) -> Image:
        return labelled_rows([(job.stage, decode(student_samples(network, z, labels, how, how.nfe[0], path)[0]).cpu())])

    return picture


def finish(job: Job, fitted: Fitted, coupling: str) -> StudentResult | None:
    """Write the trained network and sum up; the first rank does."""
    if not ranks.first():
        return None
    networks.save_network(fitted.network, job.out, fitted.averages)
    training = job.config.training
    return StudentResult(images_seen=training.images, steps=training.steps, loss=fitted.loss,
                         parameters=fitted.parameters, coupling=coupling,
                         transport_cost=fitted.totals["cost"] / fitted.totals["pairs"])
