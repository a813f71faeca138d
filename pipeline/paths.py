"""The straight path from data (t = 0) to noise (t = 1), and what a velocity says about its two ends.

Lipman et al. 2023 (arXiv 2210.02747) and Liu et al. 2023 (arXiv 2209.03003) write the same path with time reversed:
their t is our 1 - t, their velocity our -v.
"""

from __future__ import annotations

from torch import Tensor


def interpolate(x: Tensor, z: Tensor, t: Tensor | float) -> Tensor:
    """x_t = (1 - t) x + t z.

    Args:
        x: data, (B, ...).
        z: noise, same shape.
        t: times in [0, 1], (B,) or one number for all.
    """
    t = _beside(t, x)
    return (1 - t) * x + t * z


def target_velocity(x: Tensor, z: Tensor) -> Tensor:
    """v = d x_t / dt = z - x, the same all along the path: what the student regresses on. Shapes as above."""
    return z - x


def data_from_velocity(x_t: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
    """x = x_t - t v: the data end of the line through x_t with velocity v. For a trained v it is E[x | x_t]."""
    return x_t - _beside(t, x_t) * v


def noise_from_velocity(x_t: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
    """z = x_t + (1 - t) v: the noise end of the line through x_t with velocity v. For a trained v it is E[z | x_t]."""
    return x_t + (1 - _beside(t, x_t)) * v


def _beside(t: Tensor | float, x: Tensor) -> Tensor | float:
    """Times (B,) as (B, 1, ..., 1), so that they multiply (B, ...) row by row."""
    if isinstance(t, Tensor) and t.ndim:
        return t.reshape(-1, *[1] * (x.ndim - 1))
    return t
