"""The machine: its parts, its packages, and the speed of matrix products and of copies."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import torch

from benchmarks.gpu_parts import DTYPES, TF32, Context, Row, matmul_flops
from benchmarks.timing import processor

COPIED = 2**28  # bytes


def measure(context: Context) -> Iterator[Row]:
    facts = {
        "device": torch.cuda.get_device_name(context.device) if context.cuda else "CPU",
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": str(torch.backends.cudnn.version()) if context.cuda else "none",
    }
    if context.cuda:
        facts["memory"] = f"{torch.cuda.get_device_properties(context.device).total_memory / 2**30:.0f} GiB"
    for name, value in facts.items():
        yield {"fact": name, "value": str(value)}
    for precision in (*DTYPES, *([TF32] if context.cuda else [])):
        yield {"speed": f"matrix products, {precision}, TFLOP/s", "figure": matmul_flops(context, precision) / 1e12}
    block = torch.empty(COPIED // (64 if context.quick else 1), dtype=torch.uint8)
    there = torch.empty_like(block, device=context.device)
    blocks = {"pageable": block} | ({"pinned": block.pin_memory()} if context.cuda else {})
    for name, source in blocks.items():
        [seconds] = context.bench(5).medians(lambda source=source: there.copy_(source))
        yield {"speed": f"copy to the device from {name} memory, GB/s", "figure": len(block) / seconds / 1e9}
