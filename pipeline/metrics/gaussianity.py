"""How far a coupling's noise is from N(0, I), which the student is sampled from; before any student is trained.

`pipeline.reporting.text.noise` puts the figures in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.metrics._sliced import sliced_w2_to_normal

_PROJECTIONS = 256
_SEED = 0  # of their directions
_FLOOR_DRAWS = 3  # of true noise, averaged; its score varies by a few per cent

DIMENSION_STD = 0.5  # |std - 1| of a dimension beyond which it counts as off


def per_dimension(z: Tensor) -> dict[str, np.ndarray]:
    """Mean, std and excess kurtosis of each dimension over samples (n, ...): three float64 arrays (...).

    Excess kurtosis is E[(z - m)^4] / s^4 - 3: 0 for a Gaussian, negative for flat, positive for long-tailed.
    """
    z = z.detach().double().cpu()
    mean = z.mean(0)
    deviation = z - mean
    variance = deviation.square().mean(0)
    # A constant dimension has no kurtosis; call it Gaussian and let its std of 0 speak.
    kurtosis = torch.where(variance > 0, deviation.pow(4).mean(0) / variance.square().clamp(min=1e-300) - 3, 0.0)
    return {"mean": mean.numpy(), "std": variance.sqrt().numpy(), "kurtosis": kurtosis.numpy()}


def diagnose(train: Tensor, held_out: Tensor | None, images: Tensor) -> dict[str, Any]:
    """Figures of a coupling's noise, as plain data for JSON.

    Args:
        train: z of training images, (n, ...), divided by sigma_f.
        held_out: z of images that the teacher was not fitted to, (m, ...), divided by the same sigma_f, if there are.
        images: the x of `train`, (n, ...) in [-1, 1], in the same order.

    Returns:
        `train` and `held_out` (or None): n, mean and std of all values; (min, median, max) over dimensions of their
        mean, std and excess kurtosis; the share of dimensions whose std is off by more than 0.5; `sliced_w2` to
        N(0, I); `floor`, what true noise of n samples scores by the same routine.
        `transport_cost`: E |z - x|^2, `total` over dimensions and `per_dimension`; `independent`, per dimension, what
        noise drawn without regard to x would cost.

    Raises:
        InputError: fewer than two samples.
    """
    x, z = images.detach().flatten(1).double().cpu(), train.detach().flatten(1).double().cpu()
    total = float((z - x).square().sum(1).mean())
    return {
        "dimensions": z.shape[1],
        "train": _describe(train),
        "held_out": None if held_out is None else _describe(held_out),
        "transport_cost": {
            "total": total,
            "per_dimension": total / z.shape[1],
            "independent": float(x.square().mean()) + 1,
        },
    }


def _describe(z: Tensor) -> dict[str, Any]:
    parts = per_dimension(z)
    # Separate seeds, so that the floor does not share draws with z.
    noises = (torch.from_numpy(np.random.default_rng([_SEED, k]).standard_normal(z.flatten(1).shape, dtype=np.float32))
              for k in range(1, 1 + _FLOOR_DRAWS))  # fmt: skip
    return {
        "n": len(z),
        "mean": float(z.double().mean()),
        "std": float(z.double().std(correction=0)),
        **{f"dimension_{name}": _spread(values) for name, values in parts.items()},
        "dimensions_off": float((np.abs(parts["std"] - 1) > DIMENSION_STD).mean()),
        "sliced_w2": sliced_w2_to_normal(z, _PROJECTIONS, _SEED),
        "floor": float(np.mean([sliced_w2_to_normal(noise, _PROJECTIONS, _SEED) for noise in noises])),
    }


def _spread(values: np.ndarray) -> list[float]:
    """[min, median, max]."""
    return [float(values.min()), float(np.median(values)), float(values.max())]
