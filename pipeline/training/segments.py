"""Distillation to k steps: each Euler step of the student ends where the path of the student before ends it.

On the uniform grid step i runs from t = i/k to (i - 1)/k, and its velocity is k (x_{i/k} - x_{(i-1)/k}), with x_t the
path of the student before from a noise. Then k Euler steps of the student end where the path ends: distillation of
rectified flow to k steps (Liu et al. 2023, arXiv 2209.03003), with points of the path in place of a straight line's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.couplings import rows_of_rank
from pipeline.data.batches import FlowBatch
from pipeline.data.examples import Examples, shuffled
from pipeline.flow_matching.paths import LINEAR
from pipeline.runtime.seeds import derive
from pipeline.training._data import Stateless
from pipeline.training.flow_batches import STEPS_AHEAD, pixels_of
from storage.bank import Streamed


class Segments(Stateless):
    """The batch of each step, from a bank of trajectories: row p k + i - 1 holds both ends of step i of path p.

    Args:
        starts, ends: (paths * k, C, H, W) float16 or float32: the state at t = i/k, and at (i - 1)/k.
        labels: (paths * k,) int64, or None.
        steps: k.
        batch: segments in a step of the training, over all ranks.
        retained: rows (n,) to train on; None for all.
        rank, world: each rank reads its part of the batch.
    """

    path = LINEAR

    def __init__(
        self,
        starts: np.ndarray | Streamed,
        ends: np.ndarray | Streamed,
        labels: np.ndarray | None,
        steps: int,
        seed: int,
        batch: int,
        retained: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.starts, self.ends, self.steps, self.batch = Examples(starts, None), Examples(ends, labels), steps, batch
        self.retained = None if retained is None else torch.from_numpy(retained)
        self.seed = derive(seed, "student")
        self._part = None if world == 1 else rows_of_rank(batch, rank, world)
        self.ahead = STEPS_AHEAD if isinstance(starts, Streamed) else 0

    def __call__(self, step: int) -> FlowBatch:
        rows = shuffled(len(self.ends) if self.retained is None else len(self.retained), self.seed, step, self.batch)
        rows = rows if self.retained is None else self.retained[rows]
        t = ((rows % self.steps + 1).double() / self.steps).float()
        start, end = (pixels_of(examples, rows, self._part).float() for examples in (self.starts, self.ends))
        return on_a_line(start, end, t, self.steps, self.ends.classes(rows))


def on_a_line(start: Tensor, end: Tensor, t: Tensor, steps: int, labels: Tensor | None = None) -> FlowBatch:
    """The line from `start` at t (B,) to `end` at t - 1/steps, both (B, ...), as the pair x at t = 0 and z at t = 1
    on it, so that its velocity is z - x as for any pair."""
    velocity = (start - end) * steps
    t_ = t.view(-1, *[1] * (start.ndim - 1))
    return FlowBatch(start - t_ * velocity, start + (1 - t_) * velocity, t, labels)
