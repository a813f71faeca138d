"""Figures of a coupling, measured on its pairs alone.

They cost seconds and no training; `pipeline.reporting.compare` asks whether they predict curvature and Frechet
distance.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.flow_matching.paths import GaussianPath
from pipeline.metrics import FEWEST_SAMPLES, NEIGHBOURS, class_leak, gaussianity, velocity_variance
from pipeline.outputs.results import ProbeResult, VelocityVariance
from pipeline.runtime.seeds import derive
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.truncated import Truncated
from storage.required import complete

log = logging.getLogger(__name__)
MOST_PAIRS = 8192  # CIFAR-10 has 3072 dimensions
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # midpoints, so that the mean is the integral over t


def diagnose(batches: FlowBatches, step: int, device: torch.device) -> dict[str, Any]:
    """Figures of the pairs from `step` on, each image once.

    A coupling with a state, as LOOM-CFM, is measured as training has left it, and changes: save its state before.
    Deterministic. For one rank, which computes all pairs.

    Args:
        batches: the student's data, after training.
        step: the first one after training.
        device: where distances are computed.

    Returns:
        `velocity_variance`, `noise_gaussianity` and `class_leak` as in `StudentResult`. The first is None where it
        cannot be estimated: with fewer pairs than dimensions, or for a network with a condition.
    """
    x, z, labels, conditioned = _each_once(batches, step)
    if len(x) < 2:
        return {}
    noise = gaussianity.diagnose(z, None, x)["train"]
    variance = None if conditioned else _variance(x.to(device), z.to(device), labels, batches.path)
    log.info(
        "sliced W2 of the noise %.4f (true noise %.4f), Var(v | x_t, t) %s",
        noise["sliced_w2"],
        noise["floor"],
        "not measured" if variance is None else f"{variance.mean:.4f}",
    )
    leak = None
    if labels is not None and len(z) >= FEWEST_SAMPLES:
        leak = ProbeResult(**asdict(class_leak(z, labels)))
    return {"velocity_variance": variance, "noise_gaussianity": noise, "class_leak": leak}


def _variance(x: Tensor, z: Tensor, labels: Tensor | None, path: GaussianPath) -> VelocityVariance | None:
    """Within classes where each has more pairs than dimensions; over all else; not at all with still fewer pairs.
    Neither with so few that they have no `NEIGHBOURS`.

    With fewer pairs than dimensions every x lies in a subspace, and the estimate of v across it is too good.
    """
    dimensions = x[0].numel()
    least = max(dimensions, NEIGHBOURS)
    if len(x) <= least:
        return None
    within = labels is not None and int(labels.unique(return_counts=True)[1].min()) > least
    moments = [straight_time(path, t) for t in path.times(torch.tensor(TIMES, dtype=torch.float64)).tolist()]
    variances = velocity_variance(x, z, [moment for moment, _ in moments], labels=labels if within else None)
    values = tuple(scale * value for value, (_, scale) in zip(variances, moments, strict=True))
    return VelocityVariance(
        mean=sum(values) / len(values), times=TIMES, values=values, pairs=len(x), within_classes=within
    )


def straight_time(path: GaussianPath, t: float) -> tuple[float, float]:
    """(t', c) such that Var(v | x_t) on this path at time t is c times that on the straight path at t'.

    x_t = a x + s z is a + s times the straight path's point at t' = s / (a + s). With x_t known, x is
    (x_t - s (z - x)) / (a + s), and v = a' x + s' z follows from z - x alone: v = (a s' - s a') / (a + s) (z - x) + ...
    """
    a, s, a_slope, s_slope = (float(value) for value in path.coefficients(torch.tensor(t, dtype=torch.float64)))
    return s / (a + s), ((a * s_slope - s * a_slope) / (a + s)) ** 2


def _each_once(batches: FlowBatches, step: int) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """x and z (n, C, H, W), labels (n,), and whether there is a condition: of the first pairs from `step` on in one
    epoch, each image's first.

    A repeated pair would be its own nearest neighbour, and the variance of its velocity 0; another draw of an image
    would tell the class of the one before.
    """
    stream = copy.copy(batches)
    stream.label_drop, stream.coupling = 0.0, batches.coupling.for_one_rank()
    # A half-used block is in the assignment now, but not in that of a run resumed from its last checkpoint.
    stream(step)
    every, count = len(stream.examples), min(MOST_PAIRS, len(stream.examples))
    first = step * stream.batch
    if first % every + count > every:
        first += every - first % every
    steps = range(first // stream.batch, -(-(first + count) // stream.batch))
    drawn = [stream(number) for number in steps]
    window = slice(first - steps.start * stream.batch, first - steps.start * stream.batch + count)
    x, z = (torch.cat([getattr(part, name) for part in drawn])[window].cpu() for name in ("x", "z"))
    labels = complete([part.labels for part in drawn])
    of_pairs = torch.cat(labels)[window].cpu() if labels else None
    if isinstance(stream.examples, Truncated):  # whose rows are pairs
        order = derive(stream.seed, "student")
        rows = torch.cat([stream.examples.rows(order, number, stream.batch) for number in steps])[window]
        once = torch.from_numpy(np.sort(np.unique(stream.examples.images(rows), return_index=True)[1]))
        x, z, of_pairs = x[once], z[once], None if of_pairs is None else of_pairs[once]
    return x, z, of_pairs, drawn[0].condition is not None
