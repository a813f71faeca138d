"""A small classifier that measures the information in a coupling's noise: seconds on a CPU, reproducible by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.errors import InputError
from storage.required import required

PROBE_SAMPLES = 8192  # at most, drawn at random
FEWEST_SAMPLES = 16
_WIDTH, _DROPOUT = 64, 0.3
_BATCH, _RATE, _DECAY = 256, 5e-3, 1.0
_EPOCHS, _STEPS = 150, 600  # train for whichever is shorter: small sets are soon learned by heart

#: Training rows (n,) and a generator -> network inputs (b, D), classes (b, K) or None, and targets (b,).
_Batch = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor | None, Tensor]]


@dataclass(frozen=True)
class ProbeAccuracy:
    """Held-out accuracy of a probe.

    Attributes:
        accuracy: share of decisions that are right, each by a network that was not trained on that sample.
        chance: what guessing without the noise reaches.
        standard_error: of `accuracy` where there is nothing to find, sqrt(chance (1 - chance) / decisions).
        decisions: how many.
    """

    accuracy: float
    chance: float
    standard_error: float
    decisions: int


def two_sample_accuracy(z: Tensor, labels: Tensor | None = None, seed: int = 0) -> ProbeAccuracy:
    """Accuracy of a classifier of z against N(0, I), given the class: 0.5 where both have the same law.

    A classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv 1610.06545). No classifier exceeds
    (1 + TV) / 2 (their sec. 3), so the total variation between both laws is at least 2 accuracy - 1. It sees
    dependencies between dimensions, which distances of one-dimensional projections miss. Each half of z is judged by a
    network trained on the other half; the noise is fresh for each batch.

    Args:
        z: (n, ...) noises of different images.
        labels: (n,) their classes, if any; the Gaussian noise gets the same ones.
        seed: of the choice, the halves, the networks and the Gaussian noise.

    Raises:
        InputError: fewer than 16 samples.
    """
    z, labels, halves = _chosen(z, labels, seed)
    classes = None if labels is None else F.one_hot(labels).float()

    def batch(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None, Tensor]:
        rows = rows[torch.randint(len(rows), (_BATCH // 2,), generator=generator)]
        inputs = torch.cat([z[rows], torch.randn(z[rows].shape, generator=generator)])
        conditions = None if classes is None else classes[rows].repeat(2, 1)
        return inputs, conditions, torch.arange(_BATCH) // (_BATCH // 2)

    generator = torch.Generator().manual_seed(seed + 2)  # apart from those that the two networks are trained from
    right = 0
    for number, (train, test) in enumerate((halves, halves[::-1])):
        network = _trained(z.shape[1], classes, 2, partial(batch, train), seed + number, _steps(train))
        conditions = None if classes is None else classes[test]
        for target, inputs in enumerate((z[test], torch.randn(z[test].shape, generator=generator))):
            right += int((_logits(network, inputs, conditions).argmax(1) == target).sum())
    return _accuracy(right, 2 * len(z), 0.5)


def class_leak(z: Tensor, labels: Tensor, seed: int = 0) -> ProbeAccuracy:
    """Accuracy of a classifier of an image's class from its noise alone; chance is the share of the largest class.

    Samples start from noise that is independent of the class. A coupling whose noise gives the class away trains the
    student on other noise of each class than it is sampled from.

    Args:
        z: (n, ...) noises of different images.
        labels: (n,) their classes.
        seed: of the choice, the halves and the networks.

    Raises:
        InputError: fewer than 16 samples.
    """
    z, chosen, halves = _chosen(z, labels, seed)
    labels = required(chosen, "a class")

    def batch(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None, Tensor]:
        rows = rows[torch.randint(len(rows), (_BATCH,), generator=generator)]
        return z[rows], None, labels[rows]

    right = 0
    for number, (train, test) in enumerate((halves, halves[::-1])):
        network = _trained(z.shape[1], None, int(labels.max()) + 1, partial(batch, train), seed + number, _steps(train))
        right += int((_logits(network, z[test], None).argmax(1) == labels[test]).sum())
    return _accuracy(right, len(z), float(labels.bincount().max()) / len(z))


def probes(z: Tensor, labels: Tensor | None, seed: int = 0) -> dict[str, dict[str, float] | None]:
    """`two_sample` and, given classes, `class_leak` of z (n, ...), as plain data; None for too few samples."""
    enough = len(z) >= FEWEST_SAMPLES
    return {
        "two_sample": asdict(two_sample_accuracy(z, labels, seed)) if enough else None,
        "class_leak": asdict(class_leak(z, labels, seed)) if enough and labels is not None else None,
    }


class _Probe(nn.Module):
    """A perceptron on z, z^2 - 1 and the class; the squares make scales and correlations easy to see."""

    def __init__(self, dimensions: int, classes: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * dimensions + classes, _WIDTH),
            nn.SiLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, outputs),
        )

    def forward(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """(b, D) and (b, K) one-hot or None to (b, outputs) logits."""
        inputs = [z, z.square() - 1] if classes is None else [z, z.square() - 1, classes]
        return self.layers(torch.cat(inputs, dim=1))


def _trained(
    dimensions: int,
    classes: Tensor | None,
    outputs: int,
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor | None, Tensor]],
    seed: int,
    steps: int,
) -> _Probe:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = _Probe(dimensions, 0 if classes is None else classes.shape[1], outputs)
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        for _ in range(steps):
            inputs, conditions, targets = batch(generator)
            loss = F.cross_entropy(network(inputs, conditions), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval()


@torch.no_grad()
def _logits(network: _Probe, inputs: Tensor, classes: Tensor | None) -> Tensor:
    return network(inputs, classes)


def _chosen(z: Tensor, labels: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
    """At most `PROBE_SAMPLES` of z, (n, D) float32 on the CPU, their labels, and the rows of two random halves."""
    if len(z) < FEWEST_SAMPLES:
        raise InputError(f"The number of samples must be >= {FEWEST_SAMPLES}", len(z), "Pass more images.")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(z))[:PROBE_SAMPLES])
    z = z.detach().cpu().flatten(1)[order].float()
    labels = None if labels is None else labels.cpu()[order].long()
    rows = torch.arange(len(z))
    return z, labels, (rows[: len(z) // 2], rows[len(z) // 2 :])


def _steps(train: Tensor) -> int:
    return max(1, min(_STEPS, _EPOCHS * len(train) // _BATCH))


def _accuracy(right: int, decisions: int, chance: float) -> ProbeAccuracy:
    return ProbeAccuracy(right / decisions, chance, math.sqrt(chance * (1 - chance) / decisions), decisions)
