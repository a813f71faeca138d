"""A model that `flowctl export` wrote, loaded with torch and safetensors alone.

    weights.safetensors   the weights, float32
    network.json          kind and shape of the network
    sampler.json          shape and classes, pixel range and levels, and the sampling steps, number by number

Nothing in these files is code, and nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models._samplers import FlowSampler, VelocitySampler
from models.dit import DiT, DiTConfig
from models.tarflow import TarFlow, TarFlowConfig
from models.unet import UNet, UNetConfig

WEIGHTS, NETWORK, SAMPLER = "weights.safetensors", "network.json", "sampler.json"
FORMAT = 2
KINDS: dict[str, tuple[Any, Any]] = {
    "tarflow": (TarFlow, TarFlowConfig),
    "unet": (UNet, UNetConfig),
    "dit": (DiT, DiTConfig),
}


def load(folder: str | Path, device: torch.device | str = "cpu") -> VelocitySampler | FlowSampler:
    """The exported model in `folder`, ready to be called with noise (B, C, H, W) and labels (B,).

    Raises:
        ValueError: the folder is no export of this format, or its files do not fit each other.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / SAMPLER).read_bytes())
        if facts["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {facts['format']}")
        network = network_of(folder / NETWORK, folder / WEIGHTS)
    except MemoryError:
        raise
    except Exception as error:  # whatever json, safetensors and torch raise
        fault = " ".join(line.strip() for line in str(error).splitlines()[:2])  # torch names every tensor
        raise ValueError(
            f"{folder} must hold the files of `flowctl export` ({WEIGHTS}, {NETWORK}, {SAMPLER}), but: "
            f"{type(error).__name__}: {fault}; export the model again"
        ) from error
    return (FlowSampler if isinstance(network, TarFlow) else VelocitySampler)(frozen(network, device), facts)


def network_of(shape: Path, weights: Path) -> Any:
    """The network of these two files. Raises whatever json, safetensors and torch raise where they do not fit."""
    fields = json.loads(shape.read_bytes())
    network_type, shape_type = KINDS[fields.pop("kind")]
    network = network_type(shape_type(**fields))
    network.load_state_dict(load_file(weights))
    return network


def frozen(network: Any, device: torch.device | str) -> Any:
    """The network on the device, for inference alone."""
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
