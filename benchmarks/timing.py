"""Timing two sides fairly: in one process, taking turns, by their medians."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Rows = list[dict[str, Any]]


class Bench:
    """Times pieces of work on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = torch.device(device), repeats

    def seconds(self, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def medians(self, *works: Callable[[], object]) -> list[float]:
        """Median seconds of each, after one warm-up, taking turns so that a busy machine slows all alike."""
        for work in works:
            self.seconds(work)
        rounds = [[self.seconds(work) for work in works] for _ in range(self.repeats)]
        return [statistics.median(times) for times in zip(*rounds, strict=True)]


def processor() -> str:
    """The CPU's name, where Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
