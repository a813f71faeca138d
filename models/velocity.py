"""What every velocity network ``v = g(x, t, label, condition)`` shares: its features of time, its rules for inputs.

A network with ``interval`` also takes a second time r <= t and predicts the average velocity u(x, r, t) over [r, t]
(MeanFlow, Geng et al. 2025, arXiv 2505.13447, eq. 3). Without r, or with r = t, that is the velocity at t.
"""

import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

L = TypeVar("L", bound=nn.Module)


class Inputs(Protocol):
    """The part of a network's config that its inputs must fit."""

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def classes(self) -> int: ...

    @property
    def condition_channels(self) -> int: ...

    @property
    def time_scale(self) -> float: ...

    @property
    def interval(self) -> bool: ...


class VelocityNetwork(nn.Module):
    """A network that embeds times and labels; a subclass maps images to velocities by that embedding.

    Args:
        config: the architecture.
        features: sinusoids of a time, W.
        width: of the embedding, E.
    """

    def __init__(self, config: Inputs, features: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.embed_time = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        # Of t - r. Its last layer starts at zero: at first u(x, r, t) is the velocity at t, whatever r.
        self.embed_span = (
            nn.Sequential(nn.Linear(features, width), nn.SiLU(), zeroed(nn.Linear(width, width)))
            if config.interval
            else None
        )
        # Row 0 is the null class: label -1 finds it, and every label below -1 is out of the table, also on a GPU.
        self.embed_label = nn.Embedding(config.classes + 1, width) if config.classes else None
        self.features = features

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        r: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity at x.

        Args:
            x: (B, C, H, W) images on the way from data to noise.
            t: (B,) or (), floating point: times in [0, 1], 0 at the data and 1 at the noise.
            labels: (B,) int64 in [-1, classes), -1 being the null class; None is the null class for all.
            condition: (B, condition_channels, H, W) in the dtype of ``x``: an image of the same size that says what to
                make, such as a low resolution one, resized (SR3, Saharia et al. 2021, arXiv 2104.07636). It is
                given to networks with condition channels, and to no other.
            r: (B,) or (), floating point, 0 <= r <= t: the other end of the interval whose average velocity is
                predicted, for networks with ``interval`` only; None is r = t.

        Returns:
            (B, C, H, W) in the dtype of ``x``, also under autocast.

        Raises:
            ValueError: if a shape or dtype is wrong, if labels reach an unconditional network, if a label is out of
                range (seen on the CPU only), or if a condition is given or missing against the config.
        """
        check_inputs(self.config, x, t, labels, condition, r)
        t = t.expand(len(x))
        emb = self.embed_time(self.sinusoids(t).to(x.dtype))  # (B, E)
        if self.embed_span is not None:
            span = torch.zeros_like(t) if r is None else t - r.expand(len(x))
            emb = emb + self.embed_span(self.sinusoids(span).to(x.dtype))
        if self.embed_label is not None:
            if labels is None:
                labels = torch.full((len(x),), -1, device=x.device)
            emb = emb + self.embed_label(labels + 1)
        # Every block wants the embedding activated: once is enough.
        return self.velocity(with_condition(x, condition), F.silu(emb)).to(x.dtype)

    def sinusoids(self, t: Tensor) -> Tensor:
        """The features of times (B,) that `embed_time` and `embed_span` take, (B, W)."""
        return sinusoids(t, self.features, self.config.time_scale)

    def velocity(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C + condition channels, H, W) and the activated embedding (B, E)."""
        raise NotImplementedError


def zeroed(layer: L) -> L:
    """Set every parameter of ``layer`` to zero and return it: a branch that ends in it starts as the identity."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def sinusoids(t: Tensor, width: int, scale: float = 1000.0) -> Tensor:
    """Embed time as sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        t: (B,) floating point, in [0, 1].
        width: even number of features, W.
        scale: angle of the fastest sinusoid at t = 1, in radians. At 1000 the features change within a thousandth of
            the time axis; a network whose derivative with respect to t is needed takes a small one.

    Returns:
        (B, W), in float32 or, if ``t`` is float64, in float64.
    """
    # The frequencies run from 1 down to 1e-4, made for integer steps up to 1000. Of a time in [0, 1] itself even the
    # fastest sinusoid would see less than a sixth of a turn, and most others would be constants: hence the factor.
    # bfloat16 would be off by up to 2 rad near the end of the scale, so float32 at least, also under autocast.
    dtype = torch.promote_types(t.dtype, torch.float32)
    half = width // 2
    exponents = torch.arange(half, device=t.device, dtype=dtype) / half  # (W/2,)
    angles = scale * t.to(dtype)[:, None] * torch.exp(-math.log(10_000) * exponents)  # (B, W/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, W)


def with_condition(x: Tensor, condition: Tensor | None) -> Tensor:
    """What the first layer sees: x (B, C, H, W), after it on the channels the condition (B, K, H, W), if any."""
    return x if condition is None else torch.cat([x, condition], dim=1)  # (B, C + K, H, W)


def check_inputs(
    config: Inputs, x: Tensor, t: Tensor, labels: Tensor | None, condition: Tensor | None, r: Tensor | None = None
) -> None:
    """Check the arguments of a network's ``forward`` against its config.

    Raises:
        ValueError: if a shape or dtype is wrong, if labels reach an unconditional network, if a label is out of range,
            or if there is a condition without condition channels or the other way round. The range of labels is
            checked on the CPU only: on a GPU it would halt the queue, and its embedding kernel asserts the same.
    """
    c, s = config.channels, config.size
    if x.ndim != 4 or x.shape[1:] != (c, s, s):
        raise ValueError(f"x must be (B, {c}, {s}, {s}), got {tuple(x.shape)}; resize it or change the config")
    if not t.is_floating_point() or t.shape not in ((), (len(x),)):
        raise ValueError(
            f"t must be floating point of shape () or (B,) = ({len(x)},), got {t.dtype} {tuple(t.shape)}; "
            "pass one time, or one per image"
        )
    if r is not None and not config.interval:
        raise ValueError("r must be None for a network of one time; set interval in its config to use two")
    if r is not None and (not r.is_floating_point() or r.shape not in ((), (len(x),))):
        raise ValueError(f"r must be floating point of shape () or (B,) = ({len(x)},), got {r.dtype} {tuple(r.shape)}")
    _check_condition(config, x, condition)
    if labels is not None:
        _check_labels(config.classes, len(x), labels)


def _check_condition(config: Inputs, x: Tensor, condition: Tensor | None) -> None:
    shape = (len(x), config.condition_channels, config.size, config.size)
    if not config.condition_channels:
        if condition is not None:
            raise ValueError(
                "condition must be None for a network without condition channels; "
                "set condition_channels in its config to use one"
            )
    elif condition is None:
        raise ValueError(f"condition must be given, {shape}; set condition_channels to 0 in the config to go without")
    elif condition.shape != shape or condition.dtype != x.dtype:
        raise ValueError(
            f"condition must be {x.dtype} of shape (B, K, H, W) = {shape}, got {condition.dtype} "
            f"{tuple(condition.shape)}; resize or convert it, or change the config"
        )


def _check_labels(classes: int, batch: int, labels: Tensor) -> None:
    if not classes:
        raise ValueError("labels must be None for an unconditional network; set classes in its config to use them")
    if labels.dtype != torch.int64 or labels.shape != (batch,):
        raise ValueError(
            f"labels must be int64 of shape (B,) = ({batch},), got {labels.dtype} {tuple(labels.shape)}; "
            "pass one class index per image"
        )
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = labels[(labels < -1) | (labels >= classes)]
        if len(wrong):
            raise ValueError(
                f"labels must lie in [-1, {classes}), got {int(wrong[0])}; use -1 for the null class, "
                "or raise classes in the config"
            )
