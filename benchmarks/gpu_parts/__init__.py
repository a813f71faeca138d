"""Parts of `python -m benchmarks.gpu`, one module each, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pipeline.runtime.device  # noqa: F401 - fixes the workspaces of cuBLAS before its first call
from benchmarks.timing import Bench
from pipeline.cost.flops import counted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TF32 = "TF32"  # float32 whose products are rounded to 10 bits, the default of cuDNN's convolutions
COMPILING = 90.0  # seconds that must be left to compile a CIFAR network
Row = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """Where a part measures, how thoroughly, and until when."""

    device: torch.device
    quick: bool
    ends: float  # of time.monotonic
    data: Path | None = None  # Fashion-MNIST's files

    @classmethod
    def of(cls, device: str, quick: bool, seconds: float, data: Path | None = None) -> Context:
        """Raises RuntimeError where torch has no such device."""
        torch.empty(1, device=device)
        if torch.device(device).index is not None:
            torch.cuda.set_device(device)  # which is the one that clocks and memory figures are of
        return cls(torch.device(device), quick, time.monotonic() + seconds, data)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def bench(self, repeats: int) -> Bench:
        return Bench(str(self.device), 1 if self.quick else repeats)


def matmul_flops(context: Context, precision: str) -> float:
    """Floating-point operations a second of large matrix products: what a network could reach at most.

    `precision` is one of `DTYPES`, with float32 as IEEE 754 has it, or `TF32`.
    """
    size, kind = 8192 if context.cuda else 512, DTYPES.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=context.device).to(kind) for _ in range(2))
    count = 10 if context.cuda else 2

    def products() -> None:
        for _ in range(count):
            a @ b

    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32" if precision == TF32 else "ieee"
    try:
        [seconds] = context.bench(5).medians(products)
    finally:
        settings.fp32_precision = before
    return count * 2 * size**3 / seconds


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a piece of work, which also runs."""
    return int(counted(work).flops)


def autocast(context: Context, precision: str) -> torch.autocast:
    return torch.autocast(context.device.type, DTYPES[precision], enabled=precision != "float32")
