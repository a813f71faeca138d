"""The student: a velocity network trained on the couples that the recipe's coupling chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import nn

from pipeline.couplings import Source
from pipeline.data.conditions import TargetImages, condition_of
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import GaussianPath, path_of_config
from pipeline.flow_matching.sampling import conditioning_for, start_of, student_samples
from pipeline.flow_matching.times import times_of_config
from pipeline.outputs import networks
from pipeline.outputs.images import decoder, images_of, source_examples
from pipeline.outputs.results import StudentResult
from pipeline.recipe.sections import Student, Sweep
from pipeline.reporting.pictures import labelled_rows
from pipeline.runtime import ranks
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.stages._coupling import coupling_of_config
from pipeline.training.coupling_diagnostics import diagnose
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.student import finish, train
from storage.atomic import write_json
from storage.imageset import ImageSet

SHOWN = 20  # samples in the picture of a checkpoint
GLANCE = Sweep(solver="euler", nfe=(8,))  # how they are sampled


def run(job: Job) -> StudentResult | None:
    device = prepare(job.compute)
    config: Student = job.config
    data = job.inputs["data"]
    images = images_of(job)
    examples = Examples.of(images, flips=data.config["flips"])
    wish = None if config.condition is None else config.condition.model_dump()
    shape = networks.student_architecture(config.network, images, 0 if wish is None else images.channels)
    network = networks.build(shape, derive(config.seed, "student", "weights"))
    path = path_of_config(config.path)
    coupling = coupling_of_config(job, examples, device)
    if "source" in job.inputs:
        coupling = replace(coupling, draw=Source(source_examples(job.inputs["source"], images, "train")))
    couples = FlowBatches(
        examples,
        coupling,
        times_of_config(config.time),
        path,
        config.label_drop,
        config.seed,
        config.training.batch,
        getattr(config.coupling, "batch", None),
        condition_of(wish, images.levels),
    )
    fitted = train(job, network, couples, config.training, device, glance(job, images, path, device))
    if ranks.first() and couples.epochs:
        write_json(job.out / "epochs.json", couples.epochs)
    result = finish(job, fitted, config.coupling.kind)
    return result and result.model_copy(update=diagnose(couples, config.training.steps, device))


def glance(job: Job, images: ImageSet, path: GaussianPath, device: torch.device) -> Callable[[nn.Module], Image]:
    """A function that draws samples of a network in training, always of the same noise or held-out images."""
    decode = decoder(job.inputs["data"], device)
    rows = torch.arange(SHOWN)
    wish = job.config.condition
    held_out = TargetImages.of(images, None if wish is None else wish.model_dump())
    labels, condition = conditioning_for(rows, images, held_out, device)
    source = source_examples(job.inputs.get("source"), images, "test")
    z = start_of(derive(job.config.seed, "glance"), images.shape, source, device)(rows)
    how = GLANCE

    def picture(network: nn.Module) -> Image:
        made, _ = student_samples(network, z, labels, how, how.nfe[0], path, condition)
        return labelled_rows([(job.stage, decode(made).cpu())])

    return picture
