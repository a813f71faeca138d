"""The one training loop: teachers, students and one-step students differ in network, batch and loss only.

The clock is images seen. Every random draw of a step follows from (seed, step), so any step can be replayed and a run
that was killed and taken up again is the same run, bit for bit.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.ema import EMA
from pipeline.checkpoint import flatten_optimizer, load_checkpoint, restore_optimizer, save_checkpoint
from pipeline.configs import Training
from pipeline.job import Job
from pipeline.runtime import derive
from storage.atomic import write_text
from storage.errors import StageFailed

log = logging.getLogger(__name__)
LINES = 200  # lines of history over a whole training
CHECKPOINT_SHARE = 0.02  # of the time at most goes into checkpoints, however large the network


class Batch(Protocol):
    """What a step trains on: split into parts for accumulation, moved to the device that computes."""

    def to(self, device: torch.device) -> Batch: ...
    def parts(self, count: int) -> list[Batch]: ...


@dataclass(frozen=True)
class Fitted:
    """A trained network: averaged weights in eval mode, and how the loss went."""

    network: nn.Module
    history: list[dict[str, float]]
    loss: float
    totals: dict[str, float]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def learning_rate(training: Training, images: int) -> float:
    """The rate after so many images: linear warm-up, then constant or a cosine that ends and stays at `final_lr`."""
    if images < training.warmup:
        return training.lr * images / training.warmup
    if training.schedule == "constant":
        return training.lr
    span = max(1, training.images - training.warmup)
    done = min(1.0, (images - training.warmup) / span)
    return training.final_lr + (training.lr - training.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def fit(job: Job, network: nn.Module, batch: Callable[[int], Any], loss: Callable[[nn.Module, Any], Tensor],
        training: Training, device: torch.device, measure: Callable[[Any], dict[str, float]] = lambda batch: {},
        ) -> Fitted:
    """Train `network` to `training.images`, from the newest checkpoint in the work directory if there is one.

    Args:
        batch: the data of a step, a function of the step's number alone.
        loss: the mean loss of one part of a batch, a scalar.
        measure: sums to keep over the training, such as the transport cost of a coupling.

    Raises:
        StageFailed: the loss or the gradient is not finite; the message names the step and the last good checkpoint.
        Interrupted: a stop was asked for; a checkpoint was written first.
    """
    loop = _Loop(job, network.to(device), loss, training, device)
    loop.restore()
    steps = training.steps
    saving = _SaveClock(job.compute.checkpoint_seconds)
    for step, data in _ahead(batch, range(loop.step, steps), device):
        loop.take(step, data.to(device))
        for name, value in measure(data).items():
            loop.totals[name] = loop.totals.get(name, 0.0) + value
        images = min((step + 1) * training.batch, training.images)
        job.progress(images, training.images, "images", loss=loop.recent, lr=loop.rate)
        if saving.due() or job.stop:
            with saving:
                loop.save()
        job.pause_point()
    return loop.finish()


class _Loop:
    """The state that a checkpoint holds, and the step that advances it."""

    def __init__(self, job: Job, network: nn.Module, loss: Callable[[nn.Module, Any], Tensor], training: Training,
                 device: torch.device) -> None:
        # Convolutions are faster with the channels last, on CPUs and on GPUs; other layers are left as they are.
        network = network.to(memory_format=torch.channels_last)
        self.job, self.network, self.loss, self.training, self.device = job, network, loss, training, device
        self.compiled = torch.compile(network) if job.compute.compile else network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, betas=training.betas,
                                           weight_decay=training.weight_decay, fused=True)
        self.ema = EMA(network, training.ema)
        self.step, self.rate, self.recent = 0, 0.0, 0.0
        self.window: list[float] = []
        self.history: list[dict[str, float]] = []
        self.totals: dict[str, float] = {}
        self.folder = job.work / "checkpoints"

    # -- one step ------------------------------------------------------------------------------------------------

    def take(self, step: int, data: Any) -> None:
        """Gradient, finite check, clipping, optimizer, EMA. Leaves the state as after step + 1 steps."""
        torch.manual_seed(derive(self.job.config.seed, self.job.stage, "step", step))  # dropout's randomness
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = data.parts(self.training.accumulate)
        total = 0.0
        for part in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16"):
                value = self.loss(self.compiled, part) / len(parts)
            value.backward()
            total += value.item()
        self._check(step, "loss", total)
        parameters = list(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.training.clip or math.inf, foreach=True).item()
        self._check(step, "norm of the gradient", norm)
        # The rate of the step's end: the first step of a warm-up already moves.
        images = (step + 1) * self.training.batch
        self.rate = learning_rate(self.training, images)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        self.ema.update(images)
        self.step = step + 1
        self._record(total, norm, images)

    def _check(self, step: int, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise StageFailed(
                f"Stage {self.job.stage}: the {what} is {value} at step {step} "
                f"(images {step * self.training.batch:,} to {(step + 1) * self.training.batch:,}); "
                f"the weights before it are kept in {self.folder}. "
                f"Lower {self.job.stage}.training.lr or lengthen its warmup")

    def _record(self, loss: float, norm: float, images: int) -> None:
        self.window.append(loss)
        self.recent = loss
        every = max(1, self.training.steps // LINES)
        if self.step % every == 0 or self.step == self.training.steps:
            self.history.append({"images": images, "loss": sum(self.window) / len(self.window), "lr": self.rate,
                                 "gradient_norm": norm})
            self.window = []

    # -- what outlives a crash -----------------------------------------------------------------------------------

    def save(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        tensors |= flatten_optimizer(self.optimizer)
        save_checkpoint(self.folder, self.step, tensors, {"step": self.step, "window": self.window,
                                                          "history": self.history, "totals": self.totals})
        self.job.saved(min(self.step * self.training.batch, self.training.images), self.training.images, "images")

    def restore(self) -> None:
        found = load_checkpoint(self.folder)
        if found is None:
            return
        tensors, state = found
        self.network.load_state_dict(_below("network.", tensors))
        self.ema.load_state_dict(_below("ema.", tensors))
        restore_optimizer(self.optimizer, tensors)
        self.step, self.window = state["step"], state["window"]
        self.history, self.totals = state["history"], state["totals"]
        log.info("%s goes on from step %d of %d", self.job.stage, self.step, self.training.steps)

    def finish(self) -> Fitted:
        """The averaged network; its history is written beside it."""
        self.save()
        write_text(self.job.out / "history.jsonl", "".join(json.dumps(line) + "\n" for line in self.history))
        tail = self.history[-max(1, len(self.history) // 20):]
        return Fitted(self.ema.module(), self.history, sum(line["loss"] for line in tail) / len(tail), self.totals)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class _SaveClock:
    """Says when the next checkpoint is due: every so many seconds, but never more than its share of the time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.cost, self.last = seconds, 0.0, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(self.seconds, self.cost / CHECKPOINT_SHARE)

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.last = time.monotonic()
        self.cost = self.last - self.began


def _ahead(batch: Callable[[int], Any], steps: range, device: torch.device) -> Iterator[tuple[int, Any]]:
    """Steps with their data; where a GPU computes, a thread makes the next batch meanwhile."""
    if device.type == "cpu":  # the cores are busy with the step itself
        yield from ((step, batch(step)) for step in steps)
        return
    with ThreadPoolExecutor(1) as worker:
        pending = worker.submit(batch, steps.start) if len(steps) else None
        for step in steps:
            data = pending.result()
            if step + 1 < steps.stop:
                pending = worker.submit(batch, step + 1)
            yield step, data
