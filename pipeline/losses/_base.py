"""What a loss is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """Compares the velocity that a network answers with the one that it was asked for."""

    def __call__(self, answer: Tensor, target: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean over the batch, a float32 scalar; 0 where answer and target are equal.

        Args:
            answer: the network's velocity, (B, ...), half precision perhaps.
            target: the couples' velocity, (B, ...).
            x_t: where both were asked for, (B, ...).
            t: when, (B,). On the straight path the velocities lead to the images x_t - t answer and x_t - t target.
        """
