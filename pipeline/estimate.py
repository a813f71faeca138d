"""What a stage will take, before it takes it: parameters, optimizer steps, memory of the device, disk.

Networks are built without memory (torch's meta device), and one real forward pass on it says which tensors autograd
would keep, so that the estimate follows the architecture and not a rule of thumb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pipeline import configs
from pipeline.batches import Couples, NoisyImages
from pipeline.configs import Training
from pipeline.dag import Node
from pipeline.flow_matching import velocity_error
from pipeline.networks import student_shape, teacher_shape

# What a CIFAR-like source holds, known before it is read. A folder of images is measured by the data stage.
_SOURCES = {"digits": (1437, 1, 8, 10), "cifar10": (50_000, 3, 32, 10)}


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
    data = node if node.name == "data" else node.inputs["data"]
    shape = _images(data.config, measured)
    if shape is None:
        return Estimate()
    return {"data": _data, "teacher": _teacher, "couplings": _couplings, "student": _student, "pairs": _pairs,
            "onestep": _onestep}.get(node.name, lambda node, shape: Estimate())(node, shape)


def _images(config: configs.Data, measured: dict | None) -> _Shape | None:
    flips = 2 if config.flips else 1
    if measured is not None:
        return _Shape(measured["train"] * flips, measured["channels"], measured["size"],
                      tuple(measured["classes"] or ()))
    if config.source not in _SOURCES:
        return None
    rows, channels, size, classes = _SOURCES[config.source]
    return _Shape(min(rows, config.limit or rows) * flips, channels, config.size or size, ("",) * classes)


def _data(node: Node, shape: _Shape) -> Estimate:
    return Estimate(disk_bytes=shape.rows * shape.values)


def _teacher(node: Node, shape: _Shape) -> Estimate:
    from models.tarflow import TarFlow

    with torch.device("meta"):
        flow = TarFlow(teacher_shape(node.config, shape))
    per_part = node.config.training.batch // node.config.training.accumulate
    batch = NoisyImages(*_meta(per_part, shape, 1), _labels(per_part, shape))

    def loss() -> torch.Tensor:
        z, logdet = flow(batch.y, batch.labels)
        return z.square().mean() - logdet.mean()

    return _training(flow, loss, node.config.training)


def _student(node: Node, shape: _Shape) -> Estimate:
    from models.unet import UNet

    with torch.device("meta"):
        network = UNet(student_shape(node.config.network, shape))
    return _flow_matching(network, node.config.training, shape)


def _onestep(node: Node, shape: _Shape) -> Estimate:
    from models.unet import UNet

    with torch.device("meta"):
        network = UNet(student_shape(node.inputs["student"].config.network, shape))
    return _flow_matching(network, node.config.training, shape)


def _flow_matching(network: nn.Module, training: Training, shape: _Shape) -> Estimate:
    part = training.batch // training.accumulate
    couples = Couples(*_meta(part, shape, 2), torch.empty(part, device="meta"), _labels(part, shape))
    return _training(network, lambda: velocity_error(network, couples), training)


def _training(network: nn.Module, loss, training: Training) -> Estimate:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # float32 weights, gradients, two moments and one average; what autograd keeps; a checkpoint and its predecessor.
    kept = _saved_bytes(network, loss, training.precision)
    return Estimate(parameters, training.steps, 20 * parameters + kept, 2 * 16 * parameters)


def _saved_bytes(network: nn.Module, loss, precision: str) -> int:
    """Bytes of the distinct tensors that the backward pass of one part will need, weights apart."""
    weights = {id(parameter) for parameter in network.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in weights:
            seen[id(tensor)] = tensor
        return tensor

    # Autocast has no meta device; halving what float32 keeps is what bfloat16 activations take.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    total = sum(tensor.numel() * tensor.element_size() for tensor in seen.values())
    return total // 2 if precision == "bfloat16" else total


def _couplings(node: Node, shape: _Shape) -> Estimate:
    size = 2 if node.config.dtype == "float16" else 4
    return Estimate(disk_bytes=node.config.draws * shape.rows * shape.values * size)


def _pairs(node: Node, shape: _Shape) -> Estimate:
    size = 2 if node.config.dtype == "float16" else 4
    return Estimate(disk_bytes=2 * node.config.count * shape.values * size)


def _meta(count: int, shape: _Shape, how_many: int) -> list[torch.Tensor]:
    return [torch.empty(count, shape.channels, shape.size, shape.size, device="meta") for _ in range(how_many)]


def _labels(count: int, shape: _Shape) -> torch.Tensor | None:
    return torch.zeros(count, dtype=torch.int64, device="meta") if shape.classes else None


def human(count: float, unit: str = "B") -> str:
    """Bytes or numbers in three digits: 1.23 GB, 35.7 M."""
    power = min(4, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}{unit}".strip()
