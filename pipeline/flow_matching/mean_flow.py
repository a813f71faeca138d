"""Average velocities: one network for one, two or more calls (MeanFlow, Geng et al. 2025, arXiv 2505.13447).

    u(x_t, r, t) = 1 / (t - r) * integral of v(x_s, s) ds over [r, t]                                        (eq. 3)
    u = v - (t - r) d/dt u,    d/dt u = v . grad_x u + du/dt  along the path, with r fixed                   (eq. 6, 8)

The network is fitted to the right side, whose derivative is one forward-mode product (eq. 9 to 11). Sampling jumps:
x_r = x_t - (t - r) u(x_t, r, t) (eq. 12). Times are ours, t = 0 data and t = 1 noise, which are the paper's too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from models.evaluating import evaluating
from models.precision import ieee
from pipeline.data.batches import FlowBatch
from storage.errors import InputError


@dataclass(frozen=True)
class MeanFlow:
    """The loss w |u - target|^2, with w = 1 / (|u - target|^2 + epsilon)^power and no gradient through w and target.

    Args:
        power: p of the adaptive weight (sec. 4.3); 0 is the plain squared error.
        epsilon: what keeps the weight finite, in squared norms of an image.
        improved: follow the network's own velocity u(x, t, t) in the derivative and not the sample's z - x, as improved
            MeanFlow does (Geng et al. 2025, arXiv 2512.02012): the target then varies less.
        guidance: w of the guided velocity w v + (1 - w) u(x, t, t) without a class, whose averages are learned in the
            place of those of v (sec. 4.2); samples then need one call a step. 1 for none.
    """

    power: float = 1.0
    epsilon: float = 1e-3
    improved: bool = False
    guidance: float = 1.0

    def __call__(self, network: nn.Module, batch: FlowBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and its raw errors: squared error per dimension, summed over images.

        Args:
            network: takes (x, t, labels, condition, r); it may be wrapped, for several ranks or compiled.
            batch: a `FlowBatch` of the linear path with `r`.

        Returns:
            the mean over the batch of the weighted error, and "error_instant" and "error_interval": (2,), the sum of
            |u - target|^2 / D over the images with r = t or with r < t, and how many they are. The weighted error
            hardly moves while quality changes; these do.
        """
        assert batch.r is not None
        # A GPU is waited for where rows are looked up: here it has little to do yet, after the forward pass much.
        interval = batch.r < batch.t
        kinds = {"error_instant": (~interval).nonzero()[:, 0], "error_interval": interval.nonzero()[:, 0]}
        x_t = torch.lerp(batch.x, batch.z, batch.t.view(-1, *[1] * (batch.x.ndim - 1)))
        inner, velocity = unwrapped(network), batch.z - batch.x
        if self.guidance != 1:
            velocity = guided_velocity(inner, x_t, velocity, batch.t, batch.labels, batch.condition, self.guidance)
        target = average_velocity_target(
            inner, x_t, velocity, batch.r, batch.t, batch.labels, batch.condition, self.improved
        )
        u = network(x_t, batch.t, batch.labels, batch.condition, batch.r)
        squared = (u - target).float().square().flatten(1).sum(1)  # (B,)
        weight = (squared.detach() + self.epsilon) ** -self.power
        error = squared.detach() / target[0].numel()
        raw = {name: torch.stack([error[rows].sum(), error.new_full((), len(rows))]) for name, rows in kinds.items()}
        return (weight * squared).mean(), raw


@torch.no_grad()
def guided_velocity(
    network: nn.Module,
    x_t: Tensor,
    velocity: Tensor,
    t: Tensor,
    labels: Tensor | None,
    condition: Tensor | None,
    guidance: float,
) -> Tensor:
    """w v + (1 - w) u(x_t, t, t) without a class, for each image (B, C, H, W) with a class; v for the others, by which
    u without a class is learned. Raises InputError without labels."""
    if labels is None:
        raise InputError("guidance must be 1 without labels", guidance, "Give labels, or leave it at 1.")
    rows = (labels >= 0).nonzero()[:, 0]
    if not len(rows):  # a small part of a batch may have lost all its labels, and a transformer refuses an empty one
        return velocity
    x_t, t = x_t[rows], t[rows]
    condition = None if condition is None else condition[rows]
    with _exactly(network, x_t.device):
        free = network(x_t, t, torch.full_like(labels[rows], -1), condition, t)
    guided = velocity.clone()
    guided[rows] = guidance * velocity[rows] + (1 - guidance) * free.to(velocity.dtype)
    return guided


@torch.no_grad()
def average_velocity_target(
    network: nn.Module,
    x_t: Tensor,
    velocity: Tensor,
    r: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    condition: Tensor | None = None,
    improved: bool = False,
) -> Tensor:
    """v - (t - r) d/dt u(x_t, r, t) for each image (B, C, H, W); where r = t that is v, and costs nothing."""
    target = velocity.clone()
    rows = (r < t).nonzero()[:, 0]
    if len(rows):
        x_t, r, t, part = x_t[rows], r[rows], t[rows], velocity[rows]
        labels = None if labels is None else labels[rows]
        condition = None if condition is None else condition[rows]
        derivative = time_derivative(network, x_t, part, r, t, labels, condition, improved)
        target[rows] = part - (t - r).view(-1, *[1] * (x_t.ndim - 1)) * derivative.to(part.dtype)
    return target


@torch.no_grad()
def time_derivative(
    network: nn.Module,
    x_t: Tensor,
    tangent: Tensor,
    r: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    condition: Tensor | None = None,
    improved: bool = False,
) -> Tensor:
    """d/dt u(x_t, r, t) with dx/dt = `tangent` (B, C, H, W), r fixed: one product in forward mode, without a graph."""
    with _exactly(network, x_t.device):
        if improved:
            tangent = network(x_t, t, labels, condition, t)
        with forward_ad.dual_level():
            x_dual = forward_ad.make_dual(x_t, tangent.to(x_t.dtype))
            t_dual = forward_ad.make_dual(t, torch.ones_like(t))
            return forward_ad.unpack_dual(network(x_dual, t_dual, labels, condition, r)).tangent


@contextmanager
def _exactly(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network computes in float32, without the TF32 of cuDNN's convolutions, and without dropout.

    The precision of matrix products is left alone. It is float32 unless the surroundings ask for less; it belongs to
    all threads, and an online coupling may be encoding the next batch in another.
    """
    with evaluating(network), ieee(device, "conv"):
        yield


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside torch.compile's and DDP's wrappers: neither knows forward mode."""
    inner: Any = network
    while hasattr(inner, "_orig_mod") or isinstance(inner, nn.parallel.DistributedDataParallel):
        inner = inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module
    return inner
