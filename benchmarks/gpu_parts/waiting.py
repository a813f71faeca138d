"""What a training waits for: data (the bank, minibatch OT, LOOM-CFM), checkpoints, and values read back.

The first table has shares of the time of real trainings (`pipeline.training.fit`), as they report them, and the speed
of their data path by itself. OT and LOOM-CFM are overlapped with the step where a GPU computes: then the training waits
for what does not fit next to a step.

"Without reading back" is the same step with a constant in the place of each value that the loop reads from the device
(loss, norm of the gradient, transport cost): the time that a check on the device could win at most.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks.engine import checkpoint
from benchmarks.engine_data import cases, shares
from benchmarks.engine_sides import Ours, Setting
from benchmarks.engine_turns import turns
from benchmarks.gpu_parts import Context, Row


def measure(context: Context) -> Iterator[Row]:
    digits, full = cases(context.device, context.quick)
    yield from shares(replace(digits, images=192, batch=64) if context.quick else full, context.device)
    setting = (
        Setting("narrow", 2, "float32", context.device)
        if context.quick
        else Setting("cifar10", 128, "bfloat16", context.device)
    )
    yield {"network": setting.network} | checkpoint(setting)
    yield from reading_back(setting, context)


def reading_back(setting: Setting, context: Context) -> Iterator[Row]:
    rounds, each = (2, 1) if context.quick else (10, 5)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(setting, Path(folder))

        def steps() -> None:
            for _ in range(each):  # the device's queue is emptied between the rounds only
                ours.step()

        def unread_steps() -> None:
            with nothing_read(setting.device):
                steps()

        times = turns({"as it is": steps, "unread": unread_steps}, rounds, warmup=1)
        median, unread = (times[side].median / each for side in ("as it is", "unread"))
        yield {
            "network": setting.network,
            "batch": setting.batch,
            "precision": setting.precision,
            "step, ms": 1e3 * median,
            "without reading back, ms": 1e3 * unread,
            "share of reading back": f"{1 - unread / median:.1%}",
        }
        if context.cuda:
            yield {"network": setting.network, "share of a step in which the GPU is idle": f"{idle(steps):.1%}"}


@contextmanager
def nothing_read(device: torch.device) -> Iterator[None]:
    """Values of tensors on the device are not waited for inside: each reads as 2, a norm that is clipped."""
    read, read_all = torch.Tensor.item, torch.Tensor.tolist

    def item(tensor: torch.Tensor) -> float:
        return 2.0 if tensor.device.type == device.type and tensor.is_floating_point() else read(tensor)

    def tolist(tensor: torch.Tensor) -> list:
        alike = tensor.device.type == device.type and tensor.is_floating_point() and tensor.dim() == 1
        return [2.0] * len(tensor) if alike else read_all(tensor)

    with mock.patch.object(torch.Tensor, "item", item), mock.patch.object(torch.Tensor, "tolist", tolist):
        yield


def idle(steps: Callable[[], object]) -> float:
    """The share of the time in which no kernel and no copy runs on the GPU, from the first to the last."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        steps()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    return 1 - covered(spans) / (max(end for _, end in spans) - spans[0][0])


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of intervals, in order of their starts."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
