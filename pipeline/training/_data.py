"""The data of each step: this rank's part of the batch, made ahead of time where a GPU computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self

import torch
from torch import Tensor

from pipeline.runtime import ranks


class Batch(Protocol):
    """What a step trains on: split into parts for ranks and accumulation, moved to the device that computes."""

    def to(self, device: torch.device) -> Self: ...
    def parts(self, count: int) -> list[Self]: ...


class Stream:
    """Steps and their data, and the time that training has waited for them."""

    def __init__(self, batch: Callable[[int], Batch], device: torch.device) -> None:
        self.batch, self.device = batch, device
        self.waited = 0.0  # seconds

    def steps(self, steps: range) -> Iterator[tuple[int, Batch]]:
        """Each step with this rank's part of its batch, on the device."""
        source = self._at_once(steps) if self.device.type == "cpu" else self._ahead(steps)
        for step in steps:
            began = time.monotonic()
            data = next(source).to(self.device)
            self.waited += time.monotonic() - began
            yield step, data

    def _mine(self, step: int) -> Batch:
        """Every rank makes the whole batch, for a coupling may look at all of it; so it is the same for any number."""
        return self.batch(step).parts(ranks.world())[ranks.rank()]

    def _at_once(self, steps: range) -> Iterator[Batch]:
        """On a CPU the cores are busy with the step itself."""
        yield from map(self._mine, steps)

    def _ahead(self, steps: range) -> Iterator[Batch]:
        """A thread makes the next batch while the GPU computes."""
        with ThreadPoolExecutor(1) as worker:
            pending = worker.submit(self._mine, steps.start) if len(steps) else None
            for step in steps:
                data = pending.result()
                if step + 1 < steps.stop:
                    pending = worker.submit(self._mine, step + 1)
                yield data


class Memory(Protocol):
    """Part of the checkpoint. The next batch may already be made when a step is saved, hence the step."""

    def state(self, step: int) -> dict[str, Tensor]:
        """Everything as it was before the batch of `step` was made."""

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from there."""


class Nothing:
    """Batches that are functions of their step alone."""

    def state(self, step: int) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        del tensors
