"""The student's data: images in their order, each with the noise that the coupling gives it.

A coupling is asked for blocks of consecutive images. Blocks are counted along the whole training and depend neither on
the batch of a step nor on the number of ranks, so that neither changes a pair.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from pipeline.couplings import Coupling, Loom, Semidiscrete, rows_of_rank
from pipeline.data.batches import FlowBatch
from pipeline.data.conditions import Condition
from pipeline.data.examples import Examples, drop_labels
from pipeline.flow_matching.paths import GaussianPath
from pipeline.flow_matching.times import TimeDistribution, times_of_config
from pipeline.recipe.sections import MeanFlow, Objective
from pipeline.runtime.seeds import derive, generator
from pipeline.training.mixture import Mixture
from pipeline.training.truncated import Truncated
from storage.required import complete

log = logging.getLogger(__name__)
STEPS_AHEAD = 4  # batches that are read ahead from a bank on the disk


class Block(NamedTuple):
    """Consecutive images with the noise of the coupling."""

    x: Tensor
    labels: Tensor | None
    z: Tensor


@dataclass(frozen=True)
class Intervals:
    """The intervals [r, t] of a batch of average velocities (MeanFlow, Geng et al. 2025, arXiv 2505.13447, sec. 4.3).

    Attributes:
        time: the distribution of the second time.
        share: of the batch, rounded to whole rows, with r < t.
    """

    time: TimeDistribution
    share: float

    @classmethod
    def of_config(cls, config: Objective) -> Intervals | None:
        """Those of a recipe's objective; None where it learns velocities."""
        return cls(times_of_config(config.r_time), config.interval_share) if isinstance(config, MeanFlow) else None

    def around(self, t: Tensor, draws: Generator) -> tuple[Tensor, Tensor]:
        """r and t (B,): the smaller and the larger of the first time, `t`, and the second; r = t on the other rows."""
        second = self.time.sample(len(t), draws)
        r, t = torch.minimum(t, second), torch.maximum(t, second)
        instant = torch.randperm(len(t), generator=draws)[round(self.share * len(t)) :]
        r[instant] = t[instant]
        return r, t


class FlowBatches:
    """The batch of each step, and the coupling's state between steps (see `pipeline.training.BatchState`).

    Args:
        batch: images in a step, over all ranks.
        block: images in one call of the coupling; the batch unless given.
        condition: images (B, C', H, W) from images (B, C, H, W), an input of the network; None for none.
        interval: the intervals [r, t] of average velocities; None for velocities, which have no r.
        rank, world: where images are on the disk, each rank reads the part of the batch that it trains on; the other
            rows stay zero. The block must be the batch then.

    Attributes:
        ahead: steps whose batches are prepared ahead, since a bank on the disk is waited for.
    """

    def __init__(
        self,
        examples: Examples | Mixture | Truncated,
        coupling: Coupling | Semidiscrete,
        time: TimeDistribution,
        path: GaussianPath,
        label_drop: float,
        seed: int,
        batch: int,
        block: int | None = None,
        condition: Condition | None = None,
        interval: Intervals | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.examples, self.coupling, self.time, self.path = examples, coupling, time, path
        self.condition, self.label_drop, self.seed, self.interval = condition, label_drop, seed, interval
        self.batch, self.block = batch, block or batch
        self._part = None if world == 1 else rows_of_rank(batch, rank, world)
        self.ahead = STEPS_AHEAD if coupling.streamed else 0
        self._next = 0  # the first block that is not drawn yet
        self._blocks: dict[int, Block] = {}  # those that the current step may still need
        self._epochs: list[tuple[int, list[float]]] = []  # the block after each epoch's last, and sums until then
        self._lock = threading.Lock()  # the state may be read while another thread prepares the next batch

    def __call__(self, step: int) -> FlowBatch:
        """The batch of a step. Steps must come in order, from the restored one on."""
        first, last = step * self.batch, (step + 1) * self.batch
        with self._lock:
            needed = range(first // self.block, (last - 1) // self.block + 1)
            self._blocks = {number: self._blocks.get(number) or self._draw(number) for number in needed}
            blocks = list(self._blocks.values())
        rows = slice(first % self.block, first % self.block + self.batch)
        x, z = (torch.cat(parts)[rows] for parts in ([block.x for block in blocks], [block.z for block in blocks]))
        known = complete([block.labels for block in blocks])
        labels = torch.cat(known)[rows] if known else None
        draws = generator(self.seed, "student", step)
        t = self.path.times(self.time.sample(self.batch, draws))
        condition = None if self.condition is None else self.condition(x)
        labels, r = drop_labels(labels, self.label_drop, draws), None
        if self.interval is not None:
            r, t = self.interval.around(t, generator(self.seed, "student", "r", step))
        return FlowBatch(x, z, t, labels, condition, r)

    def _draw(self, number: int) -> Block:
        draws = generator(self.seed, "coupling", number)
        if isinstance(self.coupling, Semidiscrete):
            rows, z = self.coupling.draw(self.block, draws)
            return Block(self.examples.pixels(rows), self.examples.classes(rows), z.cpu())
        rows = self.examples.rows(derive(self.seed, "student"), number, self.block)
        x, labels = pixels_of(self.examples, rows, self._part), self.examples.classes(rows)
        z = self.coupling.noise_for(x, labels, rows, draws)
        self._next = number + 1
        if isinstance(self.coupling, Loom) and self._next * self.block // len(self.examples) > len(self._epochs):
            self._end_epoch(self.coupling)
        return Block(x, labels, z)

    # -- the state of LOOM-CFM -----------------------------------------------------------------------------------

    @property
    def epochs(self) -> list[dict[str, float]]:
        """For each epoch so far its number, the share of visits that were reassigned, and the mean squared distance of
        image and noise per dimension, before and after the exchanges."""
        sums, lines = [[0.0] * 4, *(line for _, line in self._epochs)], []
        for number, (before, after) in enumerate(pairwise(sums), 1):
            visited, *others = (later - earlier for earlier, later in zip(before, after, strict=True))
            reassigned, cost_before, cost_after = (value / visited for value in others)
            lines.append(
                {"epoch": number, "reassigned": reassigned, "cost_before": cost_before, "cost_after": cost_after}
            )
        return lines

    def _end_epoch(self, loom: Loom) -> None:
        self._epochs.append((self._next, list(loom.statistics().values())))
        line = self.epochs[-1]
        log.info(
            "epoch %d: %.1f%% of the images changed their noise, transport cost %.4f",
            line["epoch"],
            100 * line["reassigned"],
            line["cost_after"],
        )

    def state(self, step: int) -> dict[str, Tensor]:
        """The coupling's state before the first block that the step needs: a half-used block is drawn again."""
        if not isinstance(self.coupling, Loom):
            return {}
        with self._lock:
            first = step * self.batch // self.block
            epochs = [[at, *sums] for at, sums in self._epochs if at <= first]
            return self.coupling.state(behind=max(0, self._next - first)) | {
                "epochs": torch.tensor(epochs, dtype=torch.float64).reshape(-1, 5),
                "next": torch.tensor(first),
            }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        if not isinstance(self.coupling, Loom):
            return
        self.coupling.load_state(tensors)
        self._epochs = [(int(at), sums) for at, *sums in tensors["epochs"].tolist()]
        self._next, self._blocks = int(tensors["next"]), {}


def blocks_ahead(batch: int, block: int, steps: int = 1) -> int:
    """Blocks that may be drawn beyond those of the saved step: the next steps', and a half-used one."""
    return -(-steps * batch // block) + 2


def pixels_of(examples: Examples | Mixture | Truncated, rows: Tensor, read: Tensor | None) -> Tensor:
    """(B, C, H, W) float32 images of rows (B,), zeros where `read` (B,) bool is False. None reads all."""
    if read is None:
        return examples.pixels(rows).float()
    x = torch.zeros(len(rows), *examples.shape)
    x[read] = examples.pixels(rows[read]).float()
    return x
