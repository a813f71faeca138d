"""Networks of artifacts: built from a stage's config and the image set's shape, kept as safetensors and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import nn

from models.tarflow import TarFlow, TarFlowConfig
from models.unet import UNet, UNetConfig
from pipeline import configs
from storage.artifact import Artifact
from storage.atomic import write_bytes, write_json
from storage.errors import DamageError, InputError
from storage.imageset import ImageSet

WEIGHTS = "weights.safetensors"
SHAPE = "network.json"
_KINDS = {"tarflow": (TarFlow, TarFlowConfig), "unet": (UNet, UNetConfig)}


def teacher_shape(config: configs.Teacher, images: ImageSet) -> TarFlowConfig:
    """The TarFlow for these images. Raises InputError if its numbers do not fit them."""
    return _shaped("teacher", TarFlowConfig, channels=images.channels, size=images.size, patch=config.patch,
                   width=config.width, blocks=config.blocks, layers=config.layers, head_dim=config.head_dim,
                   dropout=config.dropout, volume_preserving=config.volume_preserving,
                   classes=len(images.classes or ()))


def student_shape(config: configs.UNet, images: ImageSet) -> UNetConfig:
    """The velocity network for these images. Raises InputError if its numbers do not fit them."""
    return _shaped("student.network", UNetConfig, channels=images.channels, size=images.size,
                   classes=len(images.classes or ()), **config.model_dump())


def _shaped(section: str, kind: type, **fields):
    try:
        return kind(**fields)
    except ValueError as error:
        raise InputError(f"The section {section} must fit the images: {error}", fields["size"],
                         f"Change {section}, or data.size") from None


def build(shape: TarFlowConfig | UNetConfig, seed: int) -> nn.Module:
    """A fresh network, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    return TarFlow(shape) if isinstance(shape, TarFlowConfig) else UNet(shape)


def save_network(network: nn.Module, folder: Path) -> None:
    """Write a network's weights and shape into an artifact's payload."""
    kind = next(name for name, (network_type, _) in _KINDS.items() if isinstance(network, network_type))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(tensors))
    write_json(folder / SHAPE, {"kind": kind, **asdict(network.config)})


def load_network(artifact: Artifact, device: torch.device | str = "cpu") -> nn.Module:
    """The artifact's network in eval mode. Raises DamageError if its files do not fit each other."""
    try:
        shape = json.loads(artifact.path(SHAPE).read_bytes())
        network_type, shape_type = _KINDS[shape.pop("kind")]
        network = network_type(shape_type(**shape))
        network.load_state_dict(load(artifact.path(WEIGHTS).read_bytes()))
    except Exception as error:
        raise DamageError(str(artifact.root), f"its network cannot be read: {error}",
                          "`flowctl verify` names the damaged file; run again to make it anew") from None
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
