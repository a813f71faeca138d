"""The state of a training and the step that advances it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.ema import EMA, HalfLife, Power
from pipeline.recipe import sections as configs
from pipeline.recipe.sections import Training
from pipeline.runtime import ranks
from pipeline.runtime.device import same_bits
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training._data import BatchState
from pipeline.training._scores import Scores, Watch
from pipeline.training.checkpoint import flatten_optimizer, load_checkpoint, restore_optimizer, save_checkpoint
from pipeline.training.learning_rate import learning_rate
from storage.atomic import write_text
from storage.errors import StageFailed

log = logging.getLogger(__name__)
HISTORY_LINES = 200  # over a whole training
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
#: (network, part of a batch) -> the mean loss, a scalar; or that and raw errors by name, each (2,), a sum and a count.
Loss = Callable[[nn.Module, Any], Tensor | tuple[Tensor, dict[str, Tensor]]]
SMALLEST_LOSS_SCALE = 2.0**-10  # in float16; below it the gradients are not small but broken


class Loop:
    """Network, optimizer, averages and history. All ranks hold the same and take the same steps."""

    def __init__(
        self,
        job: Job,
        network: nn.Module,
        loss: Loss,
        training: Training,
        device: torch.device,
        memory: BatchState,
        repeatable: bool = True,
        watch: Watch | None = None,
    ) -> None:
        # Convolutions are faster with the channels last, on CPUs and on GPUs; other layers are left as they are.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.job, self.network, self.loss, self.training, self.device = job, network, loss, training, device
        self.memory, self.repeatable = memory, repeatable
        self.ddp = (
            network
            if ranks.world() == 1
            else nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
        )
        self.unsettled = self.ddp is not network  # see `_settle`
        self.compiled = cast(nn.Module, torch.compile(self.ddp)) if job.compute.compile else self.ddp
        self.optimizer = _OPTIMIZERS[training.optimizer](
            network.parameters(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
        self.ema = EMA(network, HalfLife(training.ema))
        self.averages = {average.name: EMA(network, _decay(average)) for average in training.averages}
        self.step, self.rate, self.last_loss = 0, 0.0, 0.0
        self.log_entry: dict[str, float] | None = None
        self.window: list[float] = []
        self.errors: dict[str, list[float]] = {}  # of the window: sums and counts, over all ranks
        self.last_errors: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.totals: dict[str, float] = {}
        self.every = max(1, training.steps // HISTORY_LINES)  # steps of a line of history
        self.scores = Scores(watch, training.steps, self.every)
        self.folder = job.work / "checkpoints"

    @property
    def images(self) -> int:
        """Images seen so far, over all ranks."""
        return min(self.step * self.training.batch, self.training.images)

    def averaged(self) -> nn.Module:
        """A copy of the network with the averaged weights."""
        return self.ema.module()

    # -- one step ------------------------------------------------------------------------------------------------

    def training_step(
        self, step: int, batch: Any, sums: dict[str, float], requests: tuple[bool, bool]
    ) -> tuple[bool, bool]:
        """Gradient, finite check, clipping, optimizer, averages.

        Args:
            step: number of the step, from 0.
            batch: this rank's part of the batch.
            sums: this rank's figures, added to `totals` over all ranks.
            requests: to stop and to save, of this rank.

        Returns:
            Whether all ranks stop (if any requests it) and save (if the first requests it).

        Raises:
            StageFailed: loss or gradient is not finite.
        """
        parts = batch.parts(self.training.accumulate)
        self.network.train()
        self._settle(parts)
        torch.manual_seed(derive(self.job.seed, self.job.stage, "step", step, *self._rank_seed()))  # for dropout
        self.optimizer.zero_grad(set_to_none=True)
        loss, errors = self._gradient(parts)
        stop, save = requests[0], requests[1] and ranks.first()
        loss, stopping, saving, *added = ranks.total(
            [loss / ranks.world(), stop, save, *sums.values(), *(value for pair in errors.values() for value in pair)]
        )
        raw = iter(added[len(sums) :])
        errors = {name: [next(raw), next(raw)] for name in errors}
        self._check(step, "loss", loss)
        self.scaler.unscale_(self.optimizer)
        norm = self._clipped()
        if not self.scaler.is_enabled():  # else a gradient beyond float16 skips its step and lowers the scale
            self._check(step, "norm of the gradient", norm)
        # The rate of the step's end: the first step of a warm-up already moves.
        images = (step + 1) * self.training.batch
        self.rate = learning_rate(self.training, images)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._check_scale(step)
        for average in self._averages().values():
            average.update(images)
        for name, value in zip(sums, added, strict=False):
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.step = step + 1
        self._record(loss, errors, norm, images)
        return stopping > 0, saving > 0

    def _settle(self, parts: list[Any]) -> None:
        """A gradient that is thrown away, so that the first step after a start adds up as all others do.

        After its first backward pass DDP groups the gradients again, by the order in which they come, and three or more
        ranks add the numbers of a group in an order that depends on their place in it.
        """
        if self.unsettled:
            self._gradient(parts[:1])
            self.unsettled = False

    def _clipped(self) -> float:
        """Shorten the gradient to `clip` where it is longer; its norm before that."""
        parameters, limit = list(self.network.parameters()), self.training.clip or math.inf
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients, foreach=True)
        norm = total.item()
        if norm > limit:  # else the gradient is left alone, where clip_grad_norm_ would multiply all of it by one
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, total, foreach=True)
        return norm

    def _rank_seed(self) -> tuple[int, ...]:
        """Seeds of dropout differ between ranks; the first rank's are those of a single process."""
        return (ranks.rank(),) if ranks.rank() else ()

    def _gradient(self, parts: list[Any]) -> tuple[float, dict[str, list[float]]]:
        """The gradient of the mean loss over the parts, averaged over the ranks by DDP; this rank's mean loss, and the
        sums and counts of its raw errors."""
        kind, total = _TYPES[self.training.precision], 0.0
        errors: dict[str, list[float]] = {}
        for number, part in enumerate(parts, 1):
            # The forward pass too: attention chooses its backward kernel there.
            with (
                self._unsynchronised(number < len(parts)),
                same_bits(self.device) if self.repeatable else nullcontext(),
            ):
                with torch.autocast(self.device.type, kind, enabled=kind is not torch.float32):
                    outcome = self.loss(self.compiled, part)
                value, raw = outcome if isinstance(outcome, tuple) else (outcome, {})
                value = value / len(parts)
                self.scaler.scale(value).backward()
            total += value.item()
            _add(errors, {name: pair.tolist() for name, pair in raw.items()})
        return total, errors

    @contextmanager
    def _unsynchronised(self, skip: bool) -> Iterator[None]:
        """Ranks exchange gradients once a step, with its last part."""
        if skip and isinstance(self.ddp, nn.parallel.DistributedDataParallel):
            with self.ddp.no_sync():
                yield
        else:
            yield

    def _check(self, step: int, quantity: str, value: float) -> None:
        if not math.isfinite(value):
            saved = any(self.folder.glob("step-*.json"))
            raise StageFailed(
                f"Stage {self.job.stage}: the {quantity} is {value} at step {step} "
                f"(images {step * self.training.batch:,} to {(step + 1) * self.training.batch:,})"
                + f"; earlier weights are in {self.folder}" * saved
                + f". Lower {self.job.stage}.training.lr or lengthen its warmup."
            )

    def _check_scale(self, step: int) -> None:
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_LOSS_SCALE:
            self._check(step, "gradient in float16, at any scale of the loss,", math.inf)

    def _record(self, loss: float, errors: Mapping[str, Sequence[float]], norm: float, images: int) -> None:
        self.window.append(loss)
        _add(self.errors, errors)
        self.last_loss, self.last_errors, self.log_entry = loss, _means(errors), None
        if self.step % self.every == 0 or self.step == self.training.steps:
            self.log_entry = {"images": images, "loss": sum(self.window) / len(self.window), "lr": self.rate}
            self.log_entry |= _means(self.errors)
            if math.isfinite(norm):  # a step skipped for float16 has none
                self.log_entry["gradient_norm"] = norm
            self.history.append(self.log_entry)
            self.window, self.errors = [], {}

    def score(self) -> dict[str, float]:
        """Measure the averages and add the scores to the last line of the history, which belongs to this step."""
        averages = {self.training.first_average.name: self.ema, **self.averages}
        line = self.scores.measure(self.step, self.images, averages)
        self.history[-1] |= line
        return line

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint (the first rank) or wait for it (the others)."""
        if ranks.first():
            tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
            tensors |= {f"memory.{name}": value for name, value in self.memory.state(self.step).items()}
            for name, average in self._averages().items():
                tensors |= {f"{name}.{key}": value for key, value in average.state_dict().items()}
            tensors |= flatten_optimizer(self.optimizer) | self.scores.tensors()
            save_checkpoint(
                self.folder,
                self.step,
                tensors,
                {
                    "step": self.step,
                    "window": self.window,
                    "errors": self.errors,
                    "history": self.history,
                    "totals": self.totals,
                    "scaler": self.scaler.state_dict(),
                    "scores": self.scores.state(),
                },
            )
            self.job.saved(self.images, self.training.images, "images")
        ranks.barrier()

    def restore(self) -> None:
        """Resume from the newest valid checkpoint, if there is one."""
        checkpoint = load_checkpoint(self.folder)
        if checkpoint is None:
            return
        tensors, state = checkpoint
        self.network.load_state_dict(_with_prefix("network.", tensors))
        self.memory.load_state(_with_prefix("memory.", tensors))
        for name, average in self._averages().items():
            average.load_state_dict(_with_prefix(f"{name}.", tensors))
        restore_optimizer(self.optimizer, tensors)
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.window, self.errors = state["step"], state["window"], state["errors"]
        self.history, self.totals = state["history"], state["totals"]
        self.scores.load(tensors, state["scores"])
        log.info("%s resumes from step %d of %d", self.job.stage, self.step, self.training.steps)

    def finish(self) -> None:
        """The last checkpoint, and the history for the artifact."""
        self.save()
        if ranks.first():
            write_text(self.job.out / "history.jsonl", "".join(json.dumps(line) + "\n" for line in self.history))

    def _averages(self) -> dict[str, EMA]:
        """All averages by their prefix in a checkpoint."""
        return {"ema": self.ema} | {f"average[{name}]": average for name, average in self.averages.items()}


def _add(sums: dict[str, list[float]], pairs: Mapping[str, Sequence[float]]) -> None:
    for name, (value, count) in pairs.items():
        before = sums.get(name, (0.0, 0.0))
        sums[name] = [before[0] + value, before[1] + count]


def _means(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: value / count for name, (value, count) in errors.items() if count}


def _decay(average: configs.HalfLife | configs.Power) -> HalfLife | Power:
    return HalfLife(average.images) if isinstance(average, configs.HalfLife) else Power(average.width)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
