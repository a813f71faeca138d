"""Timing sides that take turns: each round runs all of them, and begins with another one than the round before."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Seconds of one side, round by round: by the clock on the wall, and of all this process's threads."""

    wall: list[float]
    cpu: list[float]

    @property
    def best(self) -> float:
        return min(self.wall)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)


def turns(works: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, Times]:
    """Seconds of each work. The warm-up's rounds are not counted; a GPU's queue is empty before and after a work."""
    times = {name: Times([], []) for name in works}
    names = list(works)
    for number in range(warmup + rounds):
        begin = number % len(names)
        for name in names[begin:] + names[:begin]:
            wall, cpu = _seconds(works[name])
            if number >= warmup:
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
    return times


def against(peer: Times, ours: Times) -> dict[str, float]:
    """How many times as fast we are: by the best and the median of all rounds, the lowest and highest of a round, and
    by the least CPU time, which other work on the machine disturbs less."""
    rounds = [other / own for other, own in zip(peer.wall, ours.wall, strict=True)]
    return {
        "ratio": peer.best / ours.best,
        "ratio_median": peer.median / ours.median,
        "ratio_lowest": min(rounds),
        "ratio_highest": max(rounds),
        "ratio_cpu": min(peer.cpu) / min(ours.cpu),
    }


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    _settle()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _settle()
    return time.perf_counter() - wall, time.process_time() - cpu


def _settle() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
