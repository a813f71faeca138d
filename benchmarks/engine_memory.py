"""Memory of a training step: the estimate, and the measurement in a separate process."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.engine_sides import Ours, Peer, Setting
from pipeline.cost.estimate import estimate
from pipeline.engine.dag import build
from pipeline.recipe.load import load

MIB = 2**20


def estimated(setting: Setting) -> float:
    """MiB, as `flowctl plan` would say for the CIFAR-10 recipe without classes, with this network and batch."""
    shape, section = setting.shape, "student.network"
    recipe = load(
        "fm-cifar10",
        [
            "data.labels=false",
            "reference.extractor=pixels",
            f"{section}.base={shape.base}",
            f"{section}.head_channels={shape.head_channels}",
            f"student.training.batch={setting.batch}",
            f"student.training.precision={setting.precision}",
        ],
    )
    return estimate(build(recipe)["student"]).memory_bytes / MIB


def measured(side: str, setting: Setting) -> float:
    """MiB that building a side and two of its steps take: on a GPU of its memory, else of a fresh process's."""
    if setting.device.type == "cuda":
        return peak(setting.device, lambda: _two_steps(side, setting))
    command = [
        sys.executable,
        "-m",
        "benchmarks.engine_memory",
        side,
        setting.network,
        str(setting.batch),
        setting.precision,
        str(torch.get_num_threads()),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(device: torch.device, work: Callable[[], object]) -> float:
    """MiB that a piece of work takes at its peak: on a GPU of its allocations, else of this process (Linux)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts at VmRSS again
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / MIB


def _two_steps(side: str, setting: Setting) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trained = Ours(setting, Path(folder)) if side == "ours" else Peer(setting)
        for _ in range(2):
            trained.step()


def _resident(which: str) -> int:
    """Bytes that this process holds now (VmRSS) or held at most (VmHWM). Linux."""
    return int(Path("/proc/self/status").read_text().split(f"{which}:")[1].split()[0]) * 1024


def main() -> None:
    side, network, batch, precision, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    device = torch.device("cpu")
    print(peak(device, lambda: _two_steps(side, Setting(network, int(batch), precision, device))))


if __name__ == "__main__":
    main()
