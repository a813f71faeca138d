"""Requirements of a stage, before it runs: parameters, optimizer steps, memory of the device, disk, work of a step.

Networks are built of torch's fake tensors, which have shapes and no memory, and one forward pass of them says which
tensors autograd would keep: the estimate follows the architecture and not a rule of thumb.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.cost.flops import Work, counted
from pipeline.cost.image_shape import ImageShape, data_of, image_shape, real_images
from pipeline.data.batches import FlowBatch, NoisyImages
from pipeline.engine.dag import Node, last_student
from pipeline.flow_matching.losses import LPIPS, SQUARED, Loss, LpipsHuber, PseudoHuber
from pipeline.flow_matching.objective import FlowMatching
from pipeline.outputs.networks import build, student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from pipeline.recipe.sections import Training
from storage.required import required

UPDATES = 18  # numbers of each parameter that an optimizer step reads or writes: clipping, AdamW, one average


@dataclass(frozen=True)
class Estimate:
    """Figures of one stage; None where they do not apply or are not yet computable."""

    parameters: int | None = None
    steps: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    work: Work | None = None  # of a training, for one image: forward, backward, and its share of the optimizer step


def estimate(node: Node, measured: dict | None = None, processes: int = 1) -> Estimate:
    """Figures for one node; the memory is that of each of the processes that share its batches.

    `measured` are the metrics of its data artifact, where that is there already.
    """
    shape = image_shape(data_of(node), None if node.name == "source" else measured)
    return Estimate() if shape is None or node.name == "source" else estimate_of(node, shape, processes)


def estimate_of(node: Node, shape: ImageShape, processes: int = 1) -> Estimate:
    """Figures for one node, for images of this shape."""

    def training(config: configs.Teacher | configs.Student | configs.OneStep | configs.Reflow) -> Training:
        # A share of each batch, as if it were cut into more parts.
        return config.training.model_copy(update={"accumulate": config.training.accumulate * processes})

    match node.config:
        case configs.Data():
            pixels = real_images(node, shape)
            latents = 0 if shape.pixels is None else 4 * (shape.rows + shape.test) * shape.values
            return Estimate(disk_bytes=(pixels.rows + pixels.test) * pixels.values + latents)
        case configs.Teacher() as config:
            return _teacher(config.model_copy(update={"training": training(config)}), shape)
        case configs.NoiseBank() as config:
            return _bank(config, shape)
        case configs.Potentials():
            return Estimate(memory_bytes=_points(shape))
        case configs.Student() as config:
            figures = _velocities(config, training(config), shape, None, config.objective, bool(config.quality))
            searched = _points(shape) if isinstance(config.coupling, configs.Semidiscrete) else 0
            return replace(figures, memory_bytes=required(figures.memory_bytes, "the memory") + searched)
        case configs.Pairs() as config:
            return _pairs(config, shape)
        case configs.OneStep() as config:
            objective = config.objective if config.mode == "meanflow" else None
            return _velocities(first_student(node), training(config), shape, config.loss, objective)
        case configs.Reflow() as config:
            return _velocities(first_student(node), training(config), shape, config.loss, None)
        case _:
            return Estimate()


def first_student(node: Node) -> configs.Student:
    """The student whose network a stage's own starts from."""
    while not isinstance(node.config, configs.Student):
        node = node.inputs[last_student(node.inputs)]
    return node.config


def teacher_of(node: Node) -> configs.Teacher:
    """The settings of the teacher that a stage reads."""
    config = node.inputs["teacher"].config
    assert isinstance(config, configs.Teacher)
    return config


def potentials_of(node: Node) -> configs.Potentials:
    """The settings of the potentials that a stage reads."""
    config = node.inputs["potentials"].config
    assert isinstance(config, configs.Potentials)
    return config


@lru_cache(maxsize=32)
def _teacher(config: configs.Teacher, shape: ImageShape) -> Estimate:
    from models.tarflow import TarFlow
    from pipeline.training.maximum_likelihood import nats_per_dimension

    with FakeTensorMode():
        flow = TarFlow(teacher_architecture(config, shape))
        part = NoisyImages(_images_of(shape, config.training), None)
        return _training(flow, nats_per_dimension, part, config.training, bool(config.quality))


@lru_cache(maxsize=32)
def _velocities(
    student: configs.Student,
    training: Training,
    shape: ImageShape,
    loss: configs.Loss | None,
    objective: configs.Objective | None,
    best: bool = False,
) -> Estimate:
    """Of velocities, also where averages of them are learned: the derivative in forward mode has no graph."""
    with FakeTensorMode():
        x = _images_of(shape, training)
        network = build(student_architecture(student, shape), 0)
        batch = FlowBatch(x, x.clone(), torch.empty(len(x)), None, x.clone() if student.condition else None)
        figures = _training(network, FlowMatching(loss=_loss(loss)), batch, training, best)
        if isinstance(objective, configs.MeanFlow):
            work = required(figures.work, "the counted work") + derivative_work(objective, network, x, batch.condition)
            figures = replace(figures, work=work)
        return figures


def derivative_work(objective: configs.MeanFlow, network: nn.Module, x: Tensor, condition: Tensor | None) -> Work:
    """What average velocities add to the training on an image: a product in forward mode, twice a forward pass, on the
    share of images with an interval, whose dual numbers cannot be counted without memory; and a pass for guidance."""
    with torch.no_grad():
        forward = counted(lambda: network(x, torch.empty(len(x)), None, condition)) * (1 / len(x))
    return forward * (objective.interval_share * (3 if objective.improved else 2) + objective.guided)


def _loss(config: configs.Loss | None) -> Loss:
    """The loss with the memory that it takes, without weights; that of flow matching unless a section is given."""
    match config:
        case None | configs.SquaredError():
            return SQUARED
        case configs.PseudoHuber():
            return PseudoHuber(config.c)
        case configs.LpipsHuber():
            return LpipsHuber(LPIPS(config.network, config.size), PseudoHuber(config.c))


def _images_of(shape: ImageShape, training: Training) -> Tensor:
    """One part of a batch. Labels are left out below: they change no memory to speak of."""
    return torch.empty(training.batch // training.accumulate, shape.channels, shape.size, shape.size)


def _training(
    network: nn.Module, loss: Callable[[nn.Module, Any], Tensor], part: Any, training: Training, best: bool
) -> Estimate:
    """`best` says whether checkpoints hold the best average so far."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    weights = {id(parameter) for parameter in network.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            saved[id(tensor)] = tensor  # held, so that no other tensor gets its id
        return tensor

    def step() -> None:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=training.precision != "float32"),
        ):
            value = loss(network, part)
        value.backward()

    work = counted(step) * (training.accumulate / training.batch)
    work += Work(traffic=4 * UPDATES * parameters, kernels=UPDATES) * (1 / training.batch)
    activations = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    # float32 weights, gradients, two moments, the averages. On disk: two checkpoints without the gradients.
    copies = 4 + 1 + len(training.averages)
    disk = 2 * 4 * (copies - 1 + best) * parameters
    return Estimate(parameters, training.steps, 4 * copies * parameters + activations, disk, work)


def _points(shape: ImageShape) -> int:
    """The images that semidiscrete transport searches, all on the device in float32."""
    return 4 * shape.rows * shape.values


def _bank(config: configs.NoiseBank, shape: ImageShape) -> Estimate:
    size = 2 if config.dtype == "float16" else 4
    disk = config.draws_per_image * shape.rows * shape.values * size
    if config.whiten:
        disk += 4 * max(1, len(shape.classes)) * (shape.values + 1) * shape.values
    return Estimate(disk_bytes=disk)


def _pairs(config: configs.Pairs, shape: ImageShape) -> Estimate:
    size = 2 if config.dtype == "float16" else 4
    generated = 2 * config.count * config.intervals
    return Estimate(disk_bytes=(generated + config.forward * shape.rows) * shape.values * size)
