"""Images from noise by an exported network: the few lines between a network and its samples, without the pipeline.

sampler.json states the steps as plain numbers (see `models.load`). These classes apply them; they contain no solver's
order, no path's formula and no time grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.tarflow import Guidance, TarFlow, decode, denoise, full_precision, schedule_from_dict

# Explicit Runge-Kutta steps: for each evaluation the weights of the slopes before it, then those of the step itself.
METHODS: dict[str, tuple[tuple[float, ...], ...]] = {
    "euler": ((), (1,)),
    "midpoint": ((), (1 / 2,), (0, 1)),
    "heun": ((), (1,), (1 / 2, 1 / 2)),
    "jump": ((), (1,)),  # by the average velocity over the step, whose end the evaluation names
    "rk4": ((), (1 / 2,), (0, 1 / 2), (0, 0, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


class Sampler:
    """An exported model: call it with noise to get images.

    Attributes:
        network: the network, in eval mode.
        facts: what sampler.json says.
        shape: (C, H, W) of the noise, and of the samples that come of it.
        classes: number of classes, 0 for an unconditional model.
    """

    def __init__(self, network: nn.Module, facts: Mapping[str, Any]) -> None:
        self.network = network
        self.facts = facts
        self.shape = tuple(facts["shape"])
        self.classes = len(facts["classes"] or ())

    def quantise(self, images: Tensor) -> Tensor:
        """The nearest of the data's grey levels, halves up: (...) in [-1, 1] to uint8 in 0 .. levels - 1."""
        top = self.facts["images"]["levels"] - 1
        # In float64, as float32 would round values a hair below one half onto it.
        return ((images.double() + 1) / 2 * top + 0.5).floor().clamp(0, top).to(torch.uint8)


class VelocitySampler(Sampler):
    """A student: solves dx/dt = v(x, t) from noise at t = 1 to data at t = 0."""

    @torch.no_grad()
    def __call__(self, z: Tensor, labels: Tensor | None = None, nfe: int | None = None) -> Tensor:
        """Samples of noise, one for each row.

        Args:
            z: (B, C, H, W) ~ N(0, I), on the device of the network.
            labels: (B,) int64 classes; None for an unconditional model.
            nfe: network calls to make, one of those in `facts["ways"]`; the recommended number unless given.

        Returns:
            (B, C, H, W) float32, nominally in [-1, 1]; latents if the model makes those.

        Raises:
            ValueError: no setting has `nfe` network calls, labels are missing, or an input does not fit the network.
        """
        if self.classes and labels is None:
            raise ValueError(f"labels must be given for this model; pass (B,) int64 in [0, {self.classes})")
        way = self._way(nfe)
        x, evaluations = self.facts["noise_scale"] * way["temperature"] * z.float(), iter(way["evaluations"])
        for step in way["steps"]:
            h = step["to"] - step["t"]
            *stages, weights = METHODS[step["solver"]]
            slopes: list[Tensor] = []
            for before in stages:
                slopes.append(self._velocity(_moved(x, h, before, slopes), labels, next(evaluations), way["guidance"]))
            x = _moved(x, h, weights, slopes)
        return x

    def _way(self, nfe: int | None) -> Mapping[str, Any]:
        ways = self.facts["ways"]
        if nfe is None:
            return ways[self.facts["recommended"]]
        for way in ways:
            if way["nfe"] == nfe:
                return way
        calls = ", ".join(str(way["nfe"]) for way in ways)
        raise ValueError(f"nfe must be one of those exported with the model ({calls}), got {nfe}")

    def _velocity(self, x: Tensor, labels: Tensor | None, at: Mapping[str, float], guidance: float) -> Tensor:
        t = x.new_full((len(x),), at["t"])
        # A straight path has no scales: its network predicts the velocity itself.
        seen = at["input_scale"] * x if "input_scale" in at else x
        span = {"r": x.new_full((len(x),), at["r"])} if "r" in at else {}
        v = self.network(seen, t, labels, **span)
        if guidance != 1:  # arXiv 2207.12598, eq. 6 with w -> w - 1
            null = self.network(seen, t, None, **span)
            v = null + guidance * (v - null)
        return at["skip"] * x + at["velocity_scale"] * v if "input_scale" in at else v


class FlowSampler(Sampler):
    """A teacher: inverts the flow from its prior, then removes the noise that it was trained with, if asked."""

    network: TarFlow

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of noise, (B, C, H, W) float32; arguments and errors as for `VelocitySampler`."""
        if self.classes and labels is None:
            raise ValueError(f"labels must be given for this model; pass (B,) int64 in [0, {self.classes})")
        facts = self.facts
        guidance = Guidance(facts["guidance"], facts["annealed"]) if facts["guidance"] else None
        schedules = [schedule_from_dict(fields) for fields in facts["schedules"]]
        with full_precision(self.network):
            y = decode(
                self.network, facts["temperature"] * z, labels, schedules, guidance, facts["attention_temperature"]
            )
        return denoise(self.network, y, labels, facts["denoise"]) if facts["denoise"] else y


def _moved(x: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """x + h sum_j w_j v_j, skipping the slopes that do not count."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + h * weight * slope
    return x
