"""Memory of training steps: the estimate of `flowctl plan`, and the measurement.

Of a GPU its allocations at their peak, over those before the network; of a CPU the growth of the process. What a GPU's
libraries allocate once for all networks, such as the workspaces of cuBLAS, is not in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.engine_memory import MIB, estimated, peak
from benchmarks.engine_sides import Ours, Setting
from benchmarks.gpu_parts import Context, Row
from benchmarks.gpu_parts.repeat import Trained
from models.tarflow import CONFIGS
from pipeline.cost.estimate import estimate
from pipeline.engine.dag import build
from pipeline.recipe.load import load


def measure(context: Context) -> Iterator[Row]:
    if context.cuda:
        two_steps(next(settings(context)))  # else the libraries' workspaces would count in the first setting alone
    for setting in settings(context):
        measured = peak(context.device, partial(two_steps, setting))
        yield _row(f"student, {setting.network}", setting, estimated(setting), measured)
    if context.quick:
        return
    teacher = Trained("teacher", context, 2, 128)
    assert teacher.teacher == CONFIGS["cifar10-cond"], "the network of the estimate is the one that is measured"

    def fitted() -> None:
        with tempfile.TemporaryDirectory() as folder:
            teacher.weights(Path(folder))

    recipe = load("nfm-cifar10", ["teacher.training.batch=128", "teacher.training.accumulate=1"])
    guess = estimate(build(recipe)["teacher"]).memory_bytes / MIB
    shown = Setting("cifar10", 128, "bfloat16", context.device)
    yield _row("teacher, cifar10", shown, guess, peak(context.device, fitted))


def two_steps(setting: Setting) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(setting, Path(folder))
        for _ in range(2):
            ours.step()


def settings(context: Context) -> Iterator[Setting]:
    if context.quick:
        yield Setting("narrow", 8, "float32", context.device)
        return
    for precision in ("bfloat16", "float32"):
        for batch in (128, 512):
            yield Setting("cifar10", batch, precision, context.device)


def _row(network: str, setting: Setting, guess: float, measured: float) -> Row:
    return {
        "network": network,
        "batch": setting.batch,
        "precision": setting.precision,
        "estimate, MiB": guess,
        "measured, MiB": measured,
        "measured / estimate": measured / guess,
    }
