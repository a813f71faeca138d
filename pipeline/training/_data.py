"""The data of each step: this rank's part of the batch, prepared ahead of time where a GPU computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, Self

import torch
from torch import Tensor

from pipeline.runtime import ranks


class Batch(Protocol):
    """The batch of a step: split into parts for ranks and accumulation, moved to the device that computes."""

    def to(self, device: torch.device) -> Self: ...
    def parts(self, count: int) -> list[Self]: ...


class Prefetcher:
    """This rank's part of each batch on the device, and the seconds that training has waited for them.

    Every rank prepares the whole batch, as a coupling may look at all of it: so it is the same for any number of ranks.
    """

    def __init__(self, batch: Callable[[int], Batch], device: torch.device) -> None:
        self.batch, self.device = batch, device
        # On a CPU the cores are busy with the step itself: only batches that wait for a disk are prepared ahead.
        self.ahead = max(getattr(batch, "ahead", 0), int(device.type != "cpu"))
        self.waited = 0.0  # seconds

    def steps(self, steps: range) -> Iterator[tuple[int, Batch]]:
        """Each step with its part of a batch."""
        parts = self._ahead(steps) if self.ahead else map(self._part, steps)
        for step in steps:
            start = time.monotonic()
            part = next(parts).to(self.device)
            self.waited += time.monotonic() - start
            yield step, part

    def _part(self, step: int) -> Batch:
        return self.batch(step).parts(ranks.world())[ranks.rank()]

    def _ahead(self, steps: range) -> Iterator[Batch]:
        """A thread prepares the next batches, in their order, while the step is computed."""
        with ThreadPoolExecutor(1) as worker:
            following = iter(steps)
            pending = deque(worker.submit(self._part, step) for step in islice(following, self.ahead))
            try:
                while pending:
                    part = pending.popleft().result()
                    pending.extend(worker.submit(self._part, step) for step in islice(following, 1))
                    yield part
            finally:
                for batch in pending:
                    batch.cancel()


class BatchState(Protocol):
    """State of the batches that is part of the checkpoint. The next batch may be prepared already when a step is saved,
    hence the step."""

    def state(self, step: int) -> dict[str, Tensor]:
        """The state before the batch of `step` was prepared."""

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Resume from that state."""


class Stateless:
    """Batches that are functions of their step alone."""

    def state(self, step: int) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        del tensors
