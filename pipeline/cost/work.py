"""The counted work of a training step, a forward pass, the features of an image, and a fit of potentials."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.tarflow import TarFlowConfig
from pipeline.cost.estimate import estimate_of, first_student, potentials_of, teacher_of
from pipeline.cost.flops import Work, counted
from pipeline.cost.image_shape import ImageShape, real_images
from pipeline.engine.dag import Node, students_among
from pipeline.metrics import Inception, build_classifier, classifier_images
from pipeline.metrics.neighbours import STORED_SAMPLES
from pipeline.metrics.straightness import PATH_STEPS, PATHS
from pipeline.outputs.banks import ENCODE_BATCH
from pipeline.outputs.networks import NetworkConfig, build, student_architecture, teacher_architecture
from pipeline.recipe import sections as configs

DOPRI5_CALLS = 100  # network calls of dopri5 at the tolerance of samples; the flow decides, so this is a guess


@lru_cache(maxsize=64)
def forward_work(architecture: NetworkConfig, images: int = ENCODE_BATCH) -> Work:
    """Of one image on its way through a network in evaluation, in a batch of `images`."""
    with FakeTensorMode(), torch.no_grad():
        network = build(architecture, 0).eval()
        x = torch.empty(images, architecture.channels, architecture.size, architecture.size)
        condition = getattr(architecture, "condition_channels", 0)
        options = {"condition": torch.empty(images, condition, *x.shape[2:])} if condition else {}
        if getattr(architecture, "interval", False):
            options["r"] = torch.empty(images)
        arguments = (x, None) if isinstance(architecture, TarFlowConfig) else (x, torch.empty(images), None)
        return counted(lambda: network(*arguments, **options)) * (1 / images)


def network_calls(sweeps: tuple[configs.Sweep, ...]) -> list[int]:
    """The NFE of each sampler."""
    return [nfe for sweep in sweeps for nfe in (sweep.nfe or (DOPRI5_CALLS,))]


def step_work(node: Node, shape: ImageShape) -> Work:
    """Of one image in a training step, with what the coupling computes for it."""
    work = estimate_of(node, shape).work
    assert work is not None
    if isinstance(node.config, configs.Student) and node.config.coupling.calls_teacher:
        work += forward_work(teacher_architecture(teacher_of(node), shape))
    if "potentials" in node.inputs:
        work += Work(flops=2.0 * searched(potentials_of(node), shape) * shape.values)
    return work


def searched(config: configs.Potentials, shape: ImageShape) -> float:
    """The images that semidiscrete transport compares a noise with: those of its class, or all."""
    return shape.rows / max(1, len(shape.classes) * config.within_classes)


def extractor_training(config: configs.Reference, shape: ImageShape) -> Work:
    """The training of the classifier: forward and backward, and the features and classes of all images once."""
    if config.extractor != "classifier":
        return Work()
    forward = extractor_work(config.extractor, shape)
    return forward * (3 * classifier_images(shape.rows) + shape.rows + shape.test)


@lru_cache(maxsize=16)
def extractor_work(extractor: str, shape: ImageShape) -> Work:
    """Of the features of one image."""
    if extractor == "pixels":
        return Work(traffic=8.0 * shape.values)
    with FakeTensorMode(), torch.no_grad():
        if extractor == "inception":
            images = torch.empty(8, 3, shape.size, shape.size, dtype=torch.uint8)
            return counted(partial(Inception().network, images)) * (1 / 8)
        network = build_classifier(shape.channels, shape.size, max(2, len(shape.classes)))
        return counted(partial(network, torch.empty(128, shape.channels, shape.size, shape.size))) * (1 / 128)


def potentials_work(config: configs.Potentials, shape: ImageShape) -> Work:
    """At most `passes` passes, each noise against the images of its class."""
    return Work(flops=2.0 * config.passes * shape.rows * searched(config, shape) * shape.values)


def pictures_work(node: Node, config: configs.Evaluation, shape: ImageShape) -> Work:
    """The paths of each student, the nearest training images of samples, and the student's likelihood."""
    work = Work()
    for model in students_among(node.inputs):
        forward = forward_work(student_architecture(first_student(node.inputs[model]), shape))
        work += forward * (PATH_STEPS * min(PATHS, config.samples))
        if config.likelihood and model == "student":
            images = min(config.likelihood.images, shape.test)
            work += forward * (DOPRI5_CALLS * images * (1 + 2 * config.likelihood.probes))
    pixels, models = real_images(node, shape).values, 1 + len(students_among(node.inputs))
    compared = models * min(config.samples, STORED_SAMPLES) + min(shape.test, STORED_SAMPLES)
    return work + Work(flops=2.0 * compared * shape.rows * pixels)
