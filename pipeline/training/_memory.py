"""What the data of a training remember from step to step, such as the assignment of LOOM-CFM."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
