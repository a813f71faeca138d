"""Train a network: the loop over steps, and what happens between them."""

from __future__ import annotations

import copy
import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL.Image import Image
from PIL.Image import open as open_image
from torch import nn

from pipeline.outputs.results import QualityResult
from pipeline.recipe.sections import Training
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from pipeline.training._clocks import Clock
from pipeline.training._data import BatchState, Prefetcher, Stateless
from pipeline.training._loop import Loop, Loss
from pipeline.training._monitor import Monitor
from pipeline.training._scores import Best, Watch, points
from storage.atomic import fsync_path, replacing
from storage.required import required

log = logging.getLogger(__name__)
PICTURE_SECONDS = 60.0  # between two pictures of the monitor at least
PREVIEWS = "previews"  # folder of the artifact
PREVIEW_POINTS = 8


@dataclass(frozen=True)
class Fitted:
    """A trained network: averaged weights in eval mode, further averages by name, the loss and its history.

    `best` holds the best weights by the scores of a `Watch`, measured at `points` points; None without one, or where
    no score is finite.
    """

    network: nn.Module
    averages: dict[str, nn.Module]
    history: list[dict[str, float]]
    loss: float
    totals: dict[str, float]
    best: Best | None = None
    points: int = 0

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def quality(self, metric: str, by: str, **more: Any) -> QualityResult | None:
        """The best weights as a result, chosen `by` the metric in words; None without any. `more` are its fields."""
        if self.best is None:
            return None
        averages = 1 + len(self.averages)
        of = f"best of {self.points} points" + (f" × {averages} averages" if averages > 1 else "")
        return QualityResult(
            metric=metric,
            chosen_by=f"{of} by {by}",
            points=self.points,
            average=self.best.average,
            images=self.best.images,
            value=self.best.value,
            **more,
        )

    def best_network(self) -> nn.Module:
        """A copy of the network with the best weights."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(required(self.best, "a measured average").weights)
        return network


def fit(
    job: Job,
    network: nn.Module,
    batch: Callable[[int], Any],
    loss: Loss,
    training: Training,
    device: torch.device,
    measure: Callable[[Any], dict[str, float]] = lambda batch: {},
    picture: Callable[[nn.Module], Image] | None = None,
    memory: BatchState | None = None,
    repeatable: bool = True,
    watch: Watch | None = None,
) -> Fitted:
    """Train `network` to `training.images`, from the newest checkpoint in the work directory if there is one.

    Several ranks train one network on disjoint parts of each batch (DDP); every rank calls this alike.

    Args:
        batch: the whole batch of a step, over all ranks: a function of the step, and of `memory` if there is one.
        loss: the mean loss of one part of a batch, a scalar. It calls the network that it is given. It may also return
            raw errors by name, each (2,): a sum and a count. Their means go to the history and to the monitor.
        measure: figures to sum over the training, such as the transport cost of a coupling; the same keys each time.
        picture: samples from the averaged network, always of the same noise, for the monitor; those of
            `PREVIEW_POINTS` points of the training go to the artifact too.
        memory: the state of `batch` between steps.
        repeatable: ask for deterministic gradients; False for a loss whose gradient a GPU cannot repeat.
        watch: scores at points of the training. A checkpoint is written before each: a stop or a crash while it is
            measured costs the measurement alone, which a resumed training repeats.

    Raises:
        StageFailed: the loss or the gradient is not finite; the message names the step and the last good checkpoint.
        Interrupted: a stop was requested; a checkpoint is written first.
    """
    loop = Loop(job, network.to(device), loss, training, device, memory or Stateless(), repeatable, watch)
    loop.restore()
    if ranks.first():
        _drop_damaged_previews(job)
    monitor = Monitor(job.monitor if ranks.first() else None, loop.images)
    batches, saving = Prefetcher(batch, device), Clock(job.compute.checkpoint_seconds)
    drawing, previews = Clock(PICTURE_SECONDS), points(training.steps, PREVIEW_POINTS)
    drawn = _drawn_once(picture, loop) if picture and ranks.first() else None
    if loop.scores.due(loop.step):  # the training stopped while these weights were measured
        _score(loop, monitor, {})
    scoring, scored = Clock(0.0), 0  # which is no training
    start, first, warm = time.monotonic(), loop.step, 0.0
    for step, part in batches.steps(range(first, training.steps)):
        stop, save = loop.training_step(step, part, measure(part), requests=(bool(job.stop), saving.due()))
        elapsed = time.monotonic() - start - scoring.spent
        if step == first:  # not typical: buffers are allocated, kernels chosen or compiled
            warm = elapsed
        facts = {
            "loss": loop.last_loss,
            **loop.last_errors,
            "lr": loop.rate,
            "data_wait": batches.waited / elapsed,
            "saving": saving.spent / elapsed,
        }
        job.progress(loop.images, training.images, "images", **facts, **loop.scores.latest)
        facts["images_per_second"] = (loop.step - first) * training.batch / elapsed
        if loop.log_entry and not loop.scores.due(loop.step):
            monitor.line(facts | loop.log_entry)
        if drawn and loop.step in previews:
            _preview(job, loop.images, drawn(loop.step))
        if save or stop or loop.scores.due(loop.step):
            with saving:
                loop.save()
            if drawn and drawing.due():
                with drawing:
                    monitor.picture(loop.images, drawn(loop.step))
        if stop:  # as the ranks agreed before the step; later requests count at the next one
            job.stop.request(job.stop.reason or "another rank was asked to")
            job.pause_point()
        if loop.scores.due(loop.step):
            with scoring:
                _score(loop, monitor, facts)
            scored += 1
    if drawn:
        monitor.picture(training.images, drawn(loop.step))
    monitor.close()
    if loop.step > first + 1:
        seconds = time.monotonic() - start - warm - scoring.spent
        job.timings.add("training", (loop.step - first - 1) * training.batch, seconds)
    if scored:
        job.timings.add("quality", scored, scoring.spent)
    log.info(
        "%s: %s of the time waiting for data, %s writing checkpoints",
        job.stage,
        *(f"{spent / max(time.monotonic() - start, 1e-9):.1%}" for spent in (batches.waited, saving.spent)),
    )
    return _finish(loop)


def _score(loop: Loop, monitor: Monitor, facts: dict[str, float]) -> None:
    """Measure; the monitor gets one line with the step's loss and the scores."""
    line = loop.score()
    monitor.line(facts | loop.history[-1])
    log.info("%s: %s", loop.job.stage, ", ".join(f"{name} {value:.4g}" for name, value in line.items()))


def _drawn_once(picture: Callable[[nn.Module], Image], loop: Loop) -> Callable[[int], Image]:
    """The picture of the present step, drawn once however many places show it."""
    return lru_cache(maxsize=1)(lambda step: picture(loop.averaged()))


def _preview(job: Job, images: int, picture: Image) -> None:
    """Durable before the next checkpoint, from which a resumed training does not draw it again."""
    with replacing(job.out / PREVIEWS / f"images-{images:012d}.png") as aside, open(aside, "wb") as stream:
        picture.save(stream, format="PNG")
    fsync_path(job.out)  # the folder is new


def _drop_damaged_previews(job: Job) -> None:
    """The weights that drew them are gone, so a damaged picture cannot be drawn again; it must not be published."""
    for path in sorted((job.out / PREVIEWS).glob("*.png")):
        again = io.BytesIO()
        try:
            with open_image(path) as picture:
                picture.save(again, format="PNG")
            intact = again.getvalue() == path.read_bytes()
        except (OSError, ValueError, SyntaxError):  # what Pillow raises for a damaged file
            intact = False
        if not intact:
            log.warning("%s: the picture %s is damaged; it is left out", job.stage, path.name)
            path.unlink()


def _finish(loop: Loop) -> Fitted:
    """Write the last checkpoint and the history; return the averaged network."""
    loop.finish()
    tail = loop.history[-max(1, len(loop.history) // 20) :]
    averages = {name: average.module() for name, average in loop.averages.items()}
    return Fitted(
        loop.averaged(),
        averages,
        loop.history,
        sum(line["loss"] for line in tail) / len(tail),
        loop.totals,
        loop.scores.best,
        len(loop.scores.points),
    )
