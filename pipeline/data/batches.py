"""Batches of one training step, as tensors of equal length."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Batch:
    """Tensors of equal length (or None), moved and split together."""

    def to(self, device: torch.device) -> Self:
        return replace(self, **{name: value.to(device) for name, value in self._tensors()})

    def parts(self, count: int) -> list[Self]:
        """`count` equal parts, for gradient accumulation."""
        if count == 1:
            return [self]
        chunks = {name: value.chunk(count) for name, value in self._tensors()}
        return [replace(self, **{name: chunk[i] for name, chunk in chunks.items()}) for i in range(count)]

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in pairs if value is not None]


@dataclass(frozen=True)
class NoisyImages(_Batch):
    """A teacher's batch: y = x + noise (B, C, H, W), labels (B,) with -1 for dropped ones, and for a teacher of several
    noise levels each image's, (B,)."""

    y: Tensor
    labels: Tensor | None
    noise_std: Tensor | None = None


@dataclass(frozen=True)
class FlowBatch(_Batch):
    """A student's batch: data x and noise z (B, C, H, W), times t (B,), labels (B,) with -1 for dropped ones, the
    condition (B, C', H, W), and for average velocities the interval's other end r (B,), 0 <= r <= t."""

    x: Tensor
    z: Tensor
    t: Tensor
    labels: Tensor | None
    condition: Tensor | None = None
    r: Tensor | None = None
