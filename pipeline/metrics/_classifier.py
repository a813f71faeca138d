"""A small classifier whose features stand in for Inception's on data unlike any photograph, such as digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from models.precision import ieee
from storage.errors import InputError

_WIDTH = 32  # channels of the first level
_FEATURES = 64
_SMALLEST = 8  # pixels

_BATCH, _RATE, _DECAY = 128, 3e-3, 1e-2
_STEPS, _EPOCHS = 400, 10  # train for whichever is longer


class Classifier(nn.Module):
    """Convolutions, a linear layer of features, a linear layer of classes.

    The features are taken before their activation and nothing saturates on the way (SiLU), so that they are spread
    smoothly, as the Gaussian fit of a Frechet distance would have it; those of a ReLU pile up at 0. Over the training
    images each has mean 0 and variance 1, so distances do not hang on the scale that training happened to choose.

    Args:
        channels: C of the images.
        classes: number of classes.

    Attributes:
        accuracy: on held-out images, set by `train_classifier`; None after loading weights.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.accuracy: float | None = None
        self.layers = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1),
            nn.SiLU(),
            *_halve(_WIDTH, 2 * _WIDTH),
            *_halve(2 * _WIDTH, 2 * _WIDTH),
            _Quarters(),
            nn.Flatten(),
            nn.Linear(8 * _WIDTH, _FEATURES),
        )
        self.classify = nn.Linear(_FEATURES, classes)
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(_FEATURES))
        self.register_buffer("spread", torch.ones(_FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to logits (B, classes)."""
        return self.classify(F.silu(self.layers(x)))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to (B, F), in float32 without TF32."""
        with ieee(x.device, "matmul", "conv"):
            return (self.layers(x) - self.centre) / self.spread

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(n, F) features, on any device, to (n, classes) logits on the CPU: those of `forward` for the same images."""
        raw = features.to(self.centre.device) * self.spread + self.centre
        return self.classify(F.silu(raw)).cpu()


class _Quarters(nn.Module):
    """Means of four parts, which overlap by a row where the side is odd: (B, C, H, W) -> (B, C, 2, 2)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:
            return F.adaptive_avg_pool2d(x, 2)
        # Its backward pass adds atomically on a GPU, in any order. Products with matrices do not.
        rows, columns = (_halves(side, x) for side in x.shape[2:])
        return rows @ x @ columns.T


def _halves(side: int, like: Tensor) -> Tensor:
    """(2, side): means of the first and of the second half, the middle in both."""
    half = (side + 1) // 2
    weights = torch.zeros(2, side, dtype=like.dtype, device=like.device)
    weights[0, :half] = weights[1, side - half :] = 1 / half
    return weights


def build_classifier(channels: int, size: int, classes: int) -> Classifier:
    """An untrained classifier, to load weights into.

    Raises:
        InputError: images smaller than 8x8, or fewer than two classes.
    """
    if size < _SMALLEST:
        raise InputError(f"Images of the classifier must be {_SMALLEST}x{_SMALLEST} or larger", size, "Enlarge them.")
    if classes < 2:
        raise InputError("The number of classes must be >= 2", classes, _REMEDY)
    return Classifier(channels, classes)


def train_classifier(
    images: Tensor,
    labels: Tensor | np.ndarray | None,
    held_out: Tensor,
    held_out_labels: Tensor | np.ndarray | None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Fit a classifier to training images, shifted by up to a pixel, with smoothed labels. Same seed, same weights.

    Args:
        images: (N, C, H, W) in [-1, 1].
        labels: (N,) integers from 0 on.
        held_out, held_out_labels: others, to measure the accuracy on.

    Returns:
        The classifier on `device`, frozen, in evaluation mode.

    Raises:
        InputError: no labels, or as for `build_classifier`.
    """
    if labels is None or held_out_labels is None:
        raise InputError("labels must be given for the features of a classifier", None, _REMEDY)
    labels, held_out_labels = torch.as_tensor(labels).long(), torch.as_tensor(held_out_labels).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_classifier(images.shape[1], min(images.shape[2:]), int(labels.max()) + 1).to(device)
    generator = torch.Generator().manual_seed(seed)
    steps = classifier_images(len(images)) // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (_BATCH,), generator=generator)
        x = _shifted(images[rows], generator).to(device)
        loss = F.cross_entropy(network(x), labels[rows].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()

    network.eval().requires_grad_(False)
    raw = features(network, images).double()
    network.centre.copy_(raw.mean(0))
    network.spread.copy_(raw.std(0).clamp(min=1e-6))
    guesses = torch.cat([network(part.to(device)).argmax(1).cpu() for part in held_out.split(512)])
    network.accuracy = float((guesses == held_out_labels).double().mean())
    return network


def classifier_images(rows: int) -> int:
    """Images that a classifier of `rows` training images sees in its training."""
    return _BATCH * max(_STEPS, _EPOCHS * rows // _BATCH)


@torch.no_grad()
def features(network: nn.Module, images: Tensor) -> Tensor:
    """Features of images, in batches.

    Args:
        network: anything with a method `features`, (B, C, H, W) to (B, F).
        images: (N, C, H, W) in [-1, 1], on any device.

    Returns:
        (N, F) float32 on the CPU.
    """
    device = next((parameter.device for parameter in network.parameters()), images.device)
    extract = cast(Callable[[Tensor], Tensor], network.features)
    return torch.cat([extract(part.to(device)).float().cpu() for part in images.split(512)])


_REMEDY = "Give images in one folder per class, or set reference.extractor to pixels."


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    """Half the resolution; normalised by groups, which unlike batches look at one image only."""
    return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]


def _shifted(x: Tensor, generator: Generator) -> Tensor:
    """Each image (B, C, H, W) moved by -1, 0 or 1 pixel in both directions, its edges repeated."""
    batch, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)  # (B, H + 2, W + 2, C)
    down, right = torch.randint(3, (2, batch, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)  # (B, H), (B, W)
    moved = padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
