"""One network for every path: its inputs and outputs brought to unit order, and back.

    v(x_t, t) = skip(t) x_t + velocity_scale(t) g(input_scale(t) x_t, t, c)

On a diffusion path x_t and v change size with t by orders of magnitude: a variance-exploding x_1 has std sigma_max. So
a network g there predicts a velocity in other units. With d = DATA_STD and data of that std, as EDM does for a
denoiser (Karras et al. 2022, arXiv 2206.00364, sec. 5, app. B.6):

    input_scale    = 1 / sqrt(a^2 d^2 + s^2)                       x_t then has unit variance
    skip           = (a a' d^2 + s s') / (a^2 d^2 + s^2)           the best guess of v that is linear in x_t
    velocity_scale = d (a s' - s a') / sqrt(a^2 d^2 + s^2)         what is left of v then has unit variance

g is thus asked for the noise near the data and for the data near the noise, whichever x_t does not show. Without the
skip it would have to return z on the variance-exploding path at t = 1, that is to copy its input, with an error that is
then multiplied by sigma_max.

Training minimises || g - network_target ||^2, the flow matching loss divided by velocity_scale(t)^2: all times weigh
alike; without the division t near 1 (variance exploding) or near 0 (variance preserving) would dominate. The
velocity of the minimiser, E[v | x_t], is the same as without.

On a straight path v is of the order of the data at all times. The network there predicts v itself: skip 0, scales 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.flow_matching.paths._base import GaussianPath, as_column

DATA_STD = 0.5  # of pixels in [-1, 1], about zero; EDM's

#: (x (B, ...), t (B,), labels and condition) -> (B, ...).
Network = Callable[..., Tensor]


class Preconditioning(NamedTuple):
    """The three factors of the formula above, each of the shape of t."""

    input_scale: Tensor
    skip: Tensor
    velocity_scale: Tensor


def preconditioning(path: GaussianPath, t: Tensor) -> Preconditioning:
    """The factors at times t of any shape within [path.t_end, 1]. On a straight path they are exactly 1, 0, 1."""
    if path.straight:
        one = torch.ones_like(t)
        return Preconditioning(one, torch.zeros_like(t), one)
    a, s, a_slope, s_slope = path.coefficients(t)
    variance = (a * DATA_STD).square() + s.square()
    return Preconditioning(
        variance.rsqrt(),
        (a * a_slope * DATA_STD**2 + s * s_slope) / variance,
        DATA_STD * (a * s_slope - s * a_slope) * variance.rsqrt(),
    )


def network_input(path: GaussianPath, x_t: Tensor, t: Tensor) -> Tensor:
    """The network's input for x_t (B, ...) at times t (B,): input_scale(t) x_t. On a straight path x_t itself."""
    return x_t if path.straight else preconditioning(path, as_column(t, x_t)).input_scale * x_t


def network_target(path: GaussianPath, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """The network's target for data x and noise z, (B, ...), at times t (B,).

    On a straight path it is v itself. Else (v - skip x_t) / velocity_scale, which is

        (a d z - s x / d) / sqrt(a^2 d^2 + s^2)

    and computed like that, as v and skip x_t may cancel in their difference.
    """
    if path.straight:
        return path.target_velocity(x, z, t)
    at = path.coefficients(as_column(t, x))
    return (at.a * DATA_STD * z - at.s / DATA_STD * x) * preconditioning(path, as_column(t, x)).input_scale


def velocity_of(network: Network, path: GaussianPath) -> Network:
    """The velocity field of a network trained on `network_target`, called as the network: (x_t, t, labels, ...) -> v.

    One call of it is one call of the network. On a straight path it is the network itself. Guidance wraps it. Times
    below `path.t_end` are taken for t_end.
    """
    if path.straight:
        return network

    def velocity(x_t: Tensor, t: Tensor, *context: Any, **more: Any) -> Tensor:
        t = t.clamp(min=path.t_end)
        scales = preconditioning(path, as_column(t, x_t))
        return scales.skip * x_t + scales.velocity_scale * network(scales.input_scale * x_t, t, *context, **more)

    return velocity
