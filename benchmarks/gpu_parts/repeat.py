"""Training twice, and stopped and resumed: the same bits; and the price of deterministic kernels.

Bits are those of the averaged weights. The price is a training step with `compute.deterministic` relative to one
without, the two taking turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine_sides import LR, a_job, random_images
from benchmarks.engine_turns import turns
from benchmarks.gpu_parts import COMPILING, Context, Row
from benchmarks.teacher import DIGITS
from models import tarflow, unet
from pipeline.couplings import Independent
from pipeline.data.batches import NoisyImages
from pipeline.flow_matching.mean_flow import MeanFlow
from pipeline.flow_matching.objective import FlowMatching
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import LogitNormal
from pipeline.outputs.networks import build
from pipeline.recipe.sections import Compute, Training
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.training import fit
from pipeline.training._data import Prefetcher, Stateless
from pipeline.training._loop import Loop
from pipeline.training.flow_batches import FlowBatches, Intervals
from pipeline.training.maximum_likelihood import nats_per_dimension
from storage.errors import Interrupted

MEANFLOW = "student of MeanFlow"


class Trained:
    """A training of the student, of velocities or average ones, or of the teacher on random images: its network, data
    and loss."""

    def __init__(self, model: str, context: Context, steps: int, batch: int, **compute: Any) -> None:
        self.model, self.context = model, context
        self.compute = Compute(device=str(context.device), threads=torch.get_num_threads(), **compute)
        precision = "float32" if context.quick else "bfloat16"
        self.training = Training(
            images=steps * batch, batch=batch, lr=LR, clip=1.0, ema=10 * batch, precision=precision
        )
        self.student = unet.CONFIGS["digits"] if context.quick else replace(unet.CONFIGS["cifar10"], classes=10)
        if model == MEANFLOW:
            self.student = replace(self.student, interval=True, time_scale=16.0)
        self.teacher = replace(DIGITS, classes=10) if context.quick else tarflow.CONFIGS["cifar10-cond"]
        self.examples = random_images(1024, self.student.shape, classes=10)

    def network(self) -> nn.Module:
        return build(self.teacher if self.model == "teacher" else self.student, 0)

    def data(self) -> tuple[Callable[[int], Any], Any, Callable]:
        """The batch of a step, its state, and the loss."""
        batch = self.training.batch
        if self.model == "teacher":
            return partial(_noisy, self.examples, batch), Stateless(), nats_per_dimension
        average = self.model == MEANFLOW
        batches = FlowBatches(
            self.examples,
            Independent(),
            LogitNormal(),
            LINEAR,
            0.1,
            0,
            batch,
            interval=Intervals(LogitNormal(), 0.25) if average else None,
        )
        return batches, batches, MeanFlow() if average else FlowMatching(LINEAR)

    def job(self, work: Path) -> Job:
        return a_job(work, self.student, self.training, self.compute)

    def weights(self, work: Path, stops: bool = False) -> list[Tensor]:
        """The averaged weights at the end; with `stops`, of a training that was stopped half-way and resumed."""
        if stops:
            try:
                self._fit(work, self.training.steps // 2)
            except Interrupted:
                pass
            else:
                raise AssertionError("the training must stop half-way, but it ran to its end")
        return [parameter.detach().cpu() for parameter in self._fit(work, None).parameters()]

    def _fit(self, work: Path, stop: int | None) -> nn.Module:
        device, job, (batch, memory, loss) = prepare(self.compute), self.job(work), self.data()

        def stopping(step: int) -> Any:
            if step == stop:
                job.stop.request("half-way")
            return batch(step)

        return fit(job, self.network(), stopping, loss, self.training, device, memory=memory).network

    def step(self, work: Path) -> Callable[[], object]:
        """One step of the training loop, data included."""
        device, (batch, memory, loss) = prepare(self.compute), self.data()
        loop = Loop(self.job(work), self.network().to(device), loss, self.training, device, memory)
        steps = Prefetcher(batch, device).steps(range(self.training.steps))

        def step() -> None:
            prepare(self.compute)
            number, part = next(steps)
            loop.training_step(number, part, {}, (False, False))

        return step


def measure(context: Context) -> Iterator[Row]:
    """Compiled trainings last, where there is time for them. A row names the trainings before them that ended with
    other bits, and AssertionError after the last row names all: a part that runs out of time is killed without it."""
    models = ("student", MEANFLOW, "teacher")
    cases: list[tuple[str, dict[str, Any]]] = [
        (model, compute) for model in models for compute in ({}, {"deterministic": False})
    ]
    wrong = []
    for model, compute in cases:
        wrong += differing(row := bits(model, context, compute))
        yield row
    for model in models:
        yield price(model, context)
    if wrong:
        yield {"deterministic trainings that ended with other bits": ", ".join(wrong)}
    for model in ("student", "teacher") if context.cuda else ():
        if context.left < COMPILING:
            yield {"network": model, "compiled": True, "left out": f"{context.left:.0f} s were left"}
            continue
        wrong += differing(row := bits(model, context, {"compile": True}))
        yield row
    if wrong:
        raise AssertionError(f"deterministic trainings ended with other bits: {', '.join(wrong)}")


def differing(row: Row) -> list[str]:
    """The name of a deterministic training that is not the same again, or resumed."""
    same = row["twice the same bits"] and row["resumed the same bits"]
    return [f"{row['network']}{', compiled' * row['compiled']}"] if row["deterministic"] and not same else []


def bits(model: str, context: Context, compute: dict[str, Any]) -> Row:
    steps, batch = (4, 4) if context.quick else (20, 64)
    trained = Trained(model, context, steps, batch, **compute)
    with tempfile.TemporaryDirectory() as folder:
        whole, again = (trained.weights(Path(folder) / name) for name in ("whole", "again"))
        resumed = trained.weights(Path(folder) / "resumed", stops=True)
    return {
        "network": model,
        "deterministic": trained.compute.deterministic,
        "compiled": trained.compute.compile,
        "steps": steps,
        "twice the same bits": equal(whole, again),
        "resumed the same bits": equal(whole, resumed),
    }


def price(model: str, context: Context) -> Row:
    rounds, batch = (2, 4) if context.quick else (20, 128)
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            name: Trained(model, context, 1000, batch, deterministic=name == "deterministic").step(Path(folder) / name)
            for name in ("deterministic", "fast")
        }
        times = turns(sides, rounds, warmup=1 if context.quick else 5)
    slow, fast = times["deterministic"].median, times["fast"].median
    return {
        "network": model,
        "batch": batch,
        "deterministic, images/s": batch / slow,
        "fast, images/s": batch / fast,
        "price of determinism": f"{slow / fast - 1:.1%}",
    }


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _noisy(examples: Any, batch: int, step: int) -> NoisyImages:
    draws, rows = torch.Generator().manual_seed(step), examples.rows(0, step, batch)
    x = examples.pixels(rows)
    return NoisyImages(x + 0.05 * torch.randn(x.shape, generator=draws), examples.classes(rows))
