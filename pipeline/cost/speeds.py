"""How fast a device is: products, memory traffic, and the start of a kernel. Measured on a CPU, from a table for GPUs.

Together with the counted work of a network (`pipeline.cost.flops`) that is an estimate of its time: the sum of the
three, as if nothing overlapped.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from pipeline.cost.flops import Work
from pipeline.recipe.sections import Compute
from pipeline.runtime.device import check_present
from storage.checksummed_json import cached, json_digest
from storage.errors import UsageError

TFLOPS, TB = 1e12, 1e12


@dataclass(frozen=True)
class Speed:
    """What a device reaches.

    Attributes:
        full: FLOP/s of products in float32.
        half: FLOP/s of products in bfloat16 and float16.
        bandwidth: bytes/s of kernels that only move numbers.
        start: seconds for a kernel to start.
    """

    full: float
    half: float
    bandwidth: float
    start: float

    def seconds(self, work: Work, precision: str = "float32") -> float:
        """The time of `work`: products, traffic and starts one after another."""
        rate = self.full if precision == "float32" else self.half
        return work.flops / rate + work.traffic / self.bandwidth + work.kernels * self.start


# Peaks of the makers' data sheets (2020 to 2024), without sparsity: TFLOP/s of float32 without TF32, TFLOP/s of
# bfloat16 by tensor cores (of float16 where there is no bfloat16), TB/s of memory. The first name that a device's name
# contains counts, so longer ones come first.
_PEAKS = {
    "B200": (75, 2250, 8.0),
    "H200": (67, 989, 4.8),
    "H100 PCIe": (51, 756, 2.0),
    "H100 NVL": (60, 835, 3.9),
    "H100": (67, 989, 3.35),
    "A100-SXM4-80GB": (19.5, 312, 2.04),
    "A100": (19.5, 312, 1.56),
    "L40S": (91.6, 362, 0.86),
    "L4": (30.3, 121, 0.3),
    "A10": (31.2, 125, 0.6),
    "RTX 4090": (82.6, 165, 1.01),
    "RTX 3090": (35.6, 71, 0.94),
    "V100": (15.7, 125, 0.9),
    "T4": (8.1, 65, 0.32),
}
# Shares of the peaks that eager kernels of medium size reach: large products of float32 come near theirs, tensor cores
# wait for memory. Starting a kernel from Python takes 5 to 10 microseconds.
FULL_SHARE, HALF_SHARE, BANDWIDTH_SHARE, GPU_START = 0.7, 0.4, 0.7, 8e-6
_UNKNOWN_GPU = (15.0, 60.0, 0.5)  # a GPU that the table lacks counts as a small one


def device_name(compute: Compute) -> str:
    """The name of the device that a stage would run on: of the GPU, or of the CPU."""
    if compute.device != "cpu" and torch.cuda.is_available():
        check_present(compute.device)
        return torch.cuda.get_device_name(None if compute.device in ("auto", "cuda") else compute.device)
    return cpu_name()


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the CPU, as the system calls it."""
    try:
        lines = dict(line.partition(":")[::2] for line in reversed(info.read_text().splitlines()) if ":" in line)
        names = {name.strip(): value.strip() for name, value in lines.items()}
        return " ".join(names[key] for key in ("model name", "model", "stepping") if key in names) or _machine()
    except OSError:
        return _machine()


def _machine() -> str:
    return platform.processor() or platform.machine()


def check_known_gpu(name: str) -> None:
    """Raises UsageError where the name is not that of a GPU of the table."""
    if name not in _PEAKS:
        raise UsageError("A GPU must be one of the table", name, f"Name one of: {', '.join(_PEAKS)}.")


def gpu_speed(name: str) -> Speed:
    """The speed of a GPU, by its name."""
    full, half, bandwidth = next((peaks for part, peaks in _PEAKS.items() if part in name), _UNKNOWN_GPU)
    return Speed(FULL_SHARE * full * TFLOPS, HALF_SHARE * half * TFLOPS, BANDWIDTH_SHARE * bandwidth * TB, GPU_START)


def speed_of(compute: Compute, home: Path) -> Speed:
    """The speed of the recipe's device. One thread of a CPU is measured once, and read from the store's cache later."""
    name = device_name(compute)
    if name != cpu_name():
        return gpu_speed(name)
    path = home / "cache" / f"speed-{json_digest(name)[:16]}.json"
    return of_threads(Speed(**cached(path, lambda: asdict(_one_thread()))), compute.cores)


def _one_thread() -> Speed:
    """The speed of one thread: several would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure_cpu()
    finally:
        torch.set_num_threads(threads)


def of_threads(speed: Speed, threads: int) -> Speed:
    """The speed of several threads: products scale with them, memory up to `MEMORY_THREADS`, and starts do not."""
    memory = min(threads, MEMORY_THREADS) * speed.bandwidth
    return Speed(threads * speed.full, threads * speed.half, memory, speed.start)


SIDE, VALUES, ADDITIONS = 512, 2**18, 500  # of the product, of the activation, of the kernels: 0.3 s in all
SMALL_SIDE, LONG = 256, 1e-3  # from these seconds on a small product is enough: of bfloat16 without AVX-512
# Shares of a square product and of one activation in a cache that whole networks reach: fitted to processor times of
# the networks of nfm-digits, nfm-fashion and nfm-cifar10, which they give within 30 % (docs/scale.md).
PRODUCT_SHARE, TRAFFIC_SHARE = 0.7, 0.34
MEMORY_THREADS = 8  # that fill the memory's bandwidth


@torch.no_grad()
def measure_cpu() -> Speed:
    """Time a product, an activation and tiny additions on one thread: the best of many short ones, in processor time,
    which the programs of a busy machine do not take part in."""
    x, out = torch.randn(2, VALUES)  # nothing is allocated between: fresh pages would be measured
    one = torch.zeros(1)

    def additions() -> None:
        for _ in range(ADDITIONS):
            one.add(1)

    def silu() -> None:
        torch.sigmoid(x, out=out).mul_(x).add_(x)

    traffic = 8 * x.numel() * x.element_size()  # 2 arrays pass, then 3, then 3
    return Speed(
        PRODUCT_SHARE * _of_products(torch.float32),
        PRODUCT_SHARE * _of_products(torch.bfloat16),
        TRAFFIC_SHARE * traffic / _best(silu, 50),
        _best(additions) / ADDITIONS,
    )


def _of_products(dtype: torch.dtype) -> float:
    """FLOP/s of a linear layer, square in all its sizes."""
    rate = 0.0
    for side, times in ((SMALL_SIDE, 5), (SIDE, 20)):
        a = torch.randn(side, side).to(dtype)
        seconds = _best(partial(F.linear, a, a), times)
        rate = 2 * side**3 / seconds
        if seconds > LONG:
            break
    return rate


def _best(call: Callable[[], object], times: int = 20) -> float:
    """Processor seconds of the fastest of `times` calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(times):
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    return min(seconds)
