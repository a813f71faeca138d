"""Learned perceptual image patch similarity (Zhang et al. 2018, arXiv 1801.03924), version 0.1.

Weights are those that were published, read from local files as tensors and nothing else: of the classifier as
torchvision has it (features.0.weight, ...), and of LPIPS's linear layers (lin0.model.1.weight, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.fetching import read_tensors
from storage.errors import DataError, InputError

# By layer of torchvision's `features`: "C64" is a convolution to 64 channels followed by ReLU, "M" a maximum pool.
_VGG = ["C64", "C64", "M", "C128", "C128", "M", *["C256"] * 3, "M", *["C512"] * 3, "M", *["C512"] * 3]
_VGG_TAPS = (1, 3, 6, 9, 12)  # relu1_2, 2_2, 3_3, 4_3, 5_3: after these convolutions, counted from 0
_ALEX = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
_ALEX_POOLS = (1, 2)  # before these convolutions, counted from 0
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's statistics, for pixels in [-1, 1]
_SOURCES = {"vgg": "torchvision's vgg16 and LPIPS's v0.1 vgg", "alex": "torchvision's alexnet and LPIPS's v0.1 alex"}


class LPIPS(nn.Module):
    """Distance of two images: weighted squared difference of normalised features after five layers of a classifier.

    In eval mode and frozen; gradients pass through to the images. Its dropout, which the published linear layers were
    trained with, has no effect in use and is left out.

    Args:
        network: the classifier, VGG-16 ("vgg") or AlexNet ("alex").
        size: side that images are resized to first, bilinearly; None leaves them. VGG takes sides from 16, AlexNet
            from 31.
    """

    def __init__(self, network: Literal["vgg", "alex"] = "vgg", size: int | None = None) -> None:
        super().__init__()
        self.network, self.size = network, size
        layers = _vgg() if network == "vgg" else _alex()
        self.features = nn.ModuleDict(layers)
        channels = {name: layer.out_channels for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
        self.taps = [list(channels)[place] for place in _VGG_TAPS] if network == "vgg" else list(channels)
        self.linear = nn.ParameterList([nn.Parameter(torch.zeros(1, channels[name], 1, 1)) for name in self.taps])
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances (B,) float32 of images (B, C, H, W) in [-1, 1], C being 3 or, for grey ones, 1.

        Raises:
            InputError: another number of channels.
        """
        with torch.autocast(one.device.type, enabled=False):  # normalising tiny features needs the range of float32
            total = one.new_zeros(len(one), dtype=torch.float32)
            for weight, a, b in zip(self.linear, self._layers(one), self._layers(other), strict=True):
                difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)).square()
                total = total + (weight * difference).sum(1).mean((1, 2))
            return total

    def _layers(self, images: Tensor) -> Iterator[Tensor]:
        """Features after each tapped layer, (B, channels, h, w)."""
        if images.shape[1] not in (1, 3):
            raise InputError("Images for LPIPS must have 1 or 3 channels", images.shape[1], "Use another loss.")
        x = images.float().expand(-1, 3, -1, -1)
        if self.size is not None and tuple(x.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        x = (x - self.shift) / self.scale
        for name, layer in self.features.items():
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                x = x.relu()
            if name in self.taps:
                yield x


def load_lpips(network: Literal["vgg", "alex"], features: Path, linear: Path, size: int | None = None) -> LPIPS:
    """LPIPS with published weights, on the CPU. Files are .safetensors, or else .pth read as tensors only.

    Raises:
        DataError: no file, not tensors, or tensors of other names or shapes.
    """
    lpips = LPIPS(network, size)
    expected = {f"features.{name}": value for name, value in lpips.features.state_dict().items()}
    tensors = _read(features, expected, network)
    lpips.features.load_state_dict({name.removeprefix("features."): tensors[name] for name in expected})
    expected = {f"lin{number}.model.1.weight": weight for number, weight in enumerate(lpips.linear)}
    tensors = _read(linear, expected, network)
    for name, weight in expected.items():
        weight.copy_(tensors[name])
    return lpips


def _read(path: Path, expected: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """The tensors of a file, all expected ones among them: published files also hold a classifier's last layers."""
    path, remedy = Path(path), f"Give the files of {_SOURCES[network]}."
    if not path.is_file():
        raise DataError("LPIPS's weights must be a file", str(path), remedy)
    tensors = read_tensors(path, remedy)
    for name, tensor in expected.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != tuple(tensor.shape):
            raise DataError(f"{path} must have a tensor {name} {tuple(tensor.shape)}", shape, remedy)
    return tensors


def _vgg() -> dict[str, nn.Module]:
    """By torchvision's number; ReLUs, which have numbers too, are applied in `forward`."""
    layers: dict[str, nn.Module] = {}
    number, channels = 0, 3
    for layer in _VGG:
        if layer == "M":
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            number += 1
        else:
            layers[str(number)] = nn.Conv2d(channels, int(layer[1:]), 3, padding=1)
            number, channels = number + 2, int(layer[1:])
    return layers


def _alex() -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    number = 0
    for place, (before, after, side, stride, padding) in enumerate(_ALEX):
        if place in _ALEX_POOLS:
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2)
            number += 1
        layers[str(number)] = nn.Conv2d(before, after, side, stride, padding)
        number += 2
    return layers
