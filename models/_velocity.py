"""What every velocity network ``v = g(x, t, label, condition)`` shares: its features of time, its rules for inputs.

A network with ``interval`` also takes a second time r <= t and predicts the average velocity u(x, r, t) over [r, t]
(MeanFlow, Geng et al. 2025, arXiv 2505.13447, eq. 3). Without r, or with r = t, that is the velocity at t.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


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


class Timed(Protocol):
    """The part of a network that embeds its times."""

    config: Inputs
    embed_time: Callable[[Tensor], Tensor]
    embed_span: Callable[[Tensor], Tensor] | None


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


def embedded_times(network: Timed, t: Tensor, r: Tensor | None, width: int, x: Tensor) -> Tensor:
    """Embed t, and in a network of intervals t - r too: (B, E).

    Args:
        network: its ``embed_time`` maps features (B, W) to (B, E), and so does ``embed_span`` where there is one.
        t, r: (B,) or (); None is r = t.
        width: number of features, W.
        x: (B, ...), the batch that the times are of, in the dtype of the result.
    """
    t = t.expand(len(x))
    emb = network.embed_time(sinusoids(t, width, network.config.time_scale).to(x.dtype))
    if network.embed_span is None:
        return emb
    span = torch.zeros_like(t) if r is None else t - r.expand(len(x))
    return emb + network.embed_span(sinusoids(span, width, network.config.time_scale).to(x.dtype))


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
