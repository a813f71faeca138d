"""What a stage needs, before it runs: parameters, optimizer steps, memory of the device, disk.

Networks are built of torch's fake tensors, which have shapes and no memory, and one forward pass of them says which
tensors autograd would keep: the estimate follows the architecture and not a rule of thumb.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.data.batches import FlowBatch, NoisyImages
from pipeline.engine.dag import IMAGES, Node, student_among
from pipeline.flow_matching.losses import LPIPS, SQUARED, Loss, LpipsHuber, PseudoHuber
from pipeline.flow_matching.objective import FlowMatching
from pipeline.outputs.networks import build, student_architecture, teacher_architecture
from pipeline.recipe import sections as configs
from pipeline.recipe.sections import Training

# (rows, channels, size, classes) of sources, before they are read. A folder of images is measured by the data stage.
_SOURCES = {
    "digits": (1437, 1, 8, 10),
    "mnist": (60_000, 1, 28, 10),
    "fashion-mnist": (60_000, 1, 28, 10),
    "cifar10": (50_000, 3, 32, 10),
    "cifar100": (50_000, 3, 32, 100),
}


@dataclass(frozen=True)
class Estimate:
    """Figures of one stage; None where they do not apply or cannot be known yet."""

    parameters: int | None = None
    steps: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True)
class _Shape:
    """The part of an image set that networks depend on."""

    rows: int
    channels: int
    size: int
    classes: tuple[str, ...]

    @property
    def values(self) -> int:
        return self.channels * self.size**2


def estimate(node: Node, measured: dict | None = None) -> Estimate:
    """Figures for one node. `measured` are the metrics of its data artifact, where that is there already."""
    data = node if node.name in IMAGES else node.inputs["data"]
    shape = _images(data.config, None if node.name == "source" else measured)
    if shape is None:
        return Estimate()
    return {
        "data": _data,
        "teacher": _teacher,
        "bank": _couplings,
        "student": _student,
        "pairs": _pairs,
        "reflow": _on_pairs,
        "onestep": _on_pairs,
    }.get(node.stage.kind, lambda node, shape: Estimate())(node, shape)


def _images(config: configs.Data, measured: dict | None) -> _Shape | None:
    flips = 2 if config.flips else 1
    if measured is not None:
        return _Shape(
            measured["train"] * flips, measured["channels"], measured["size"], tuple(measured["classes"] or ())
        )
    if config.source not in _SOURCES or config.classes is not None or config.autoencoder is not None:
        return None  # the data stage counts and measures them
    rows, channels, size, classes = _SOURCES[config.source]
    return _Shape(
        min(rows, config.limit or rows) * flips, channels, config.size or size, ("",) * classes * config.labels
    )


def _data(node: Node, shape: _Shape) -> Estimate:
    return Estimate(disk_bytes=shape.rows * shape.values)


def _teacher(node: Node, shape: _Shape) -> Estimate:
    from models.tarflow import TarFlow
    from pipeline.training.maximum_likelihood import nats_per_dimension

    with FakeTensorMode():
        flow = TarFlow(teacher_architecture(node.config, shape))
        part = NoisyImages(_images_of(shape, node.config.training), None)
        return _training(flow, nats_per_dimension, part, node.config.training)


def _student(node: Node, shape: _Shape) -> Estimate:
    return _velocities(node.config, node.config.training, shape)


def _on_pairs(node: Node, shape: _Shape) -> Estimate:
    """Of a student that starts from another one's network."""
    student = node
    while student.name != "student":
        student = student.inputs[student_among(student.inputs)]
    return _velocities(student.config, node.config.training, shape, node.config.loss)


def _velocities(
    student: configs.Student, training: Training, shape: _Shape, loss: configs.Loss | None = None
) -> Estimate:
    """Of velocities, also where averages of them are learned: the derivative in forward mode has no graph."""
    with FakeTensorMode():
        x = _images_of(shape, training)
        network = build(student_architecture(student, shape), 0)
        batch = FlowBatch(x, x.clone(), torch.empty(len(x)), None, x.clone() if student.condition else None)
        return _training(network, FlowMatching(loss=_loss(loss)), batch, training)


def _loss(config: configs.Loss | None) -> Loss:
    """The loss with the memory that it takes, without weights."""
    if isinstance(config, configs.LpipsHuber):
        return LpipsHuber(LPIPS(config.network, config.size), PseudoHuber(config.c))
    return SQUARED


def _images_of(shape: _Shape, training: Training) -> Tensor:
    """One part of a batch. Labels are left out below: they change no memory to speak of."""
    return torch.empty(training.batch // training.accumulate, shape.channels, shape.size, shape.size)


def _training(network: nn.Module, loss: Callable[[nn.Module, Any], Tensor], part: Any, training: Training) -> Estimate:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    weights = {id(parameter) for parameter in network.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            saved[id(tensor)] = tensor  # held, so that no other tensor gets its id
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=training.precision != "float32"),
    ):
        loss(network, part)
    activations = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    # float32 weights, gradients, two moments, the averages. On disk: two checkpoints without the gradients.
    copies = 4 + 1 + len(training.averages)
    return Estimate(
        parameters, training.steps, 4 * copies * parameters + activations, 2 * 4 * (copies - 1) * parameters
    )


def _couplings(node: Node, shape: _Shape) -> Estimate:
    size = 2 if node.config.dtype == "float16" else 4
    return Estimate(disk_bytes=node.config.draws_per_image * shape.rows * shape.values * size)


def _pairs(node: Node, shape: _Shape) -> Estimate:
    size = 2 if node.config.dtype == "float16" else 4
    made = 2 * node.config.count * node.config.intervals
    return Estimate(disk_bytes=(made + node.config.forward * shape.rows) * shape.values * size)
