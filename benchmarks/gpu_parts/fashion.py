"""NFM against other couplings on Fashion-MNIST at 28x28: every stage, in the time that is left.

Rates are measured first. They give the share of the recipes' images to train on with which all runs should end in
time; it is the same for all of them, so that they stay comparable. Runs that do not end in time are left out.
"""

from __future__ import annotations

import itertools
import logging
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.gpu_parts import Context, Row
from benchmarks.matrix import shortened
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from pipeline.data.batches import FlowBatch, NoisyImages
from pipeline.data.sources.published import IDX_FILES
from pipeline.engine.plan import plan
from pipeline.flow_matching.objective import FlowMatching
from pipeline.outputs.networks import build, student_architecture, teacher_architecture
from pipeline.recipe.load import load
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.compare import compare, run_of
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job, Progress
from pipeline.training._data import Stateless
from pipeline.training._loop import Loop, Loss
from pipeline.training.maximum_likelihood import nats_per_dimension
from storage.artifact import Artifact
from storage.errors import Interrupted

RECIPES = ("nfm-fashion", "fm-fashion", "ot-fashion", "loom-fashion", "sd-fashion")
PUBLISHED = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
DRAWS, SAMPLES, CALLS = 2, 10_000, 63
FIXED, SHARED = 6.0, 40.0  # seconds of each run, and of all together, that are neither training nor sampling
MARGIN = 0.8  # of the time: the loop also prepares data, saves and draws pictures


def measure(context: Context) -> Iterator[Row]:
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        data = context.data or (PUBLISHED if PUBLISHED.is_dir() else None)
        source = "Fashion-MNIST" if data else "generated images: the data set is not on this machine"
        data = data or generated(Path(folder) / "idx", 512 if context.quick else 20_000)
        common = [f"data.path={data}", f"compute.device={context.device}", "compute.inference_batch=2048"]
        fraction = 0.0 if context.quick else affordable(load("nfm-fashion", common), context)
        yield {"data": source, "share of the recipes' images": fraction, "seconds": context.left}
        runs = []
        for name in RECIPES[:2] if context.quick else RECIPES:
            recipe = load(name, common)
            fewer = tiny(recipe) if context.quick else affordable_work(recipe, fraction)
            artifacts = finished(load(name, [*common, *fewer]), Path(folder) / "store", context)
            if artifacts is None:
                yield {"recipe": name, "error": "left out: it did not end in time"}
                break
            runs.append(run_of(name, 0, artifacts))
            yield {"recipe": name, "images/s of the student": rate(artifacts["student"]), **seconds(artifacts)}
            for score in runs[-1].scores:
                yield {
                    "recipe": name,
                    "model": score.model,
                    "NFE": score.nfe,
                    score.metric: score.value,
                    "to held-out images": score.value_held_out,
                }
        if runs:
            yield {"protocol": runs[0].protocol, "compared": len(compare(runs).runs)}


def finished(recipe: Recipe, home: Path, context: Context) -> dict[str, Artifact] | None:
    """The artifacts of a run up to its evaluation, without Prefect; None where the time ended first."""
    session = Session.open(recipe, (), "evaluation", home)
    session.store.prepare()
    timer = threading.Timer(max(0.0, context.left), session.stop.request, ["the time is up"])
    timer.start()
    try:
        with recording(session, plan(session.nodes, session.store), command="benchmark"):
            return run_stages(session)
    except Interrupted:
        return None
    finally:
        timer.cancel()


def affordable_work(recipe: Recipe, share: float) -> list[str]:
    """Overrides: this share of the work, the averages shorter with it."""
    rules = [*shortened(recipe, share), f"evaluation.samples={SAMPLES}"]
    for section in ("teacher", "student", "onestep"):
        if (config := getattr(recipe, section)) is not None:
            rules.append(f"{section}.training.ema={max(1, round(share * config.training.ema))}")
    return rules + ([f"bank.draws_per_image={DRAWS}"] if recipe.bank is not None else [])


def tiny(recipe: Recipe) -> list[str]:
    """Overrides: hardly any work."""
    rules = ["data.limit=256", "data.size=14", "reference.extractor=pixels", "evaluation.samples=32"]
    rules += ["evaluation.student=[{solver: euler, grid: uniform, nfe: [1, 2]}]", "student.network.base=8"]
    rules += ["student.network.head_channels=8", "student.network.attention=[7]"]
    if recipe.teacher is not None:
        rules += ["teacher.width=16", "teacher.head_dim=8", "teacher.blocks=2", "teacher.layers=1"]
        rules += ["teacher.preview_samples=4", "bank.draws_per_image=1", "pairs.count=64", "pairs.nfe=2"]
    trained = [section for section in ("teacher", "student", "onestep") if getattr(recipe, section) is not None]
    fields = {"images": 128, "batch": 32, "warmup": 32}
    return rules + [f"{section}.training.{name}={value}" for section in trained for name, value in fields.items()]


def affordable(recipe: Recipe, context: Context) -> float:
    """The share of the recipe's images for which all runs should end in time, at most 1."""
    teacher, student = (seconds_per_image(recipe, stage, context) for stage in ("teacher", "student"))
    trained = (
        recipe.teacher.training.images * teacher
        + (len(RECIPES) * recipe.student.training.images + recipe.onestep.training.images) * student
        + recipe.pairs.count * recipe.pairs.nfe * student / 3
    )
    # A forward pass is a third of a step.
    once = SHARED + 60_000 * DRAWS * 2 * teacher / 3 + len(RECIPES) * (SAMPLES * CALLS * student / 3 + FIXED)
    return min(1.0, max(0.001, (MARGIN * context.left - once) / trained))


def seconds_per_image(recipe: Recipe, stage: str, context: Context) -> float:
    """Of the training loop's step with the recipe's network, without the preparation of its data."""
    shape = SimpleNamespace(channels=1, size=28, classes=("",) * 10)
    config = getattr(recipe, stage).model_copy(update={"seed": 0})
    architecture = teacher_architecture if stage == "teacher" else student_architecture
    device, batch = prepare(recipe.compute), config.training.batch
    x, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
    part: NoisyImages | FlowBatch = NoisyImages(x, labels)
    loss: Loss = nats_per_dimension
    if stage == "student":
        part, loss = FlowBatch(x, torch.randn_like(x), torch.rand(batch), labels), FlowMatching()
    part = part.to(device)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(stage, config, {}, Path(folder), recipe.compute, Progress(stage, Path(folder)))
        network, numbers = build(architecture(config, shape), 0).to(device), itertools.count()
        loop = Loop(job, network, loss, config.training, device, Stateless())

        def steps(count: int = 5) -> None:
            for number in itertools.islice(numbers, count):
                loop.training_step(number, part, {}, (False, False))

        [seconds] = context.bench(3).medians(steps)
    return seconds / 5 / batch


def rate(student: Artifact) -> float:
    return student.metrics["images_seen"] / student.provenance.wall_seconds


def seconds(artifacts: dict[str, Artifact]) -> dict[str, float]:
    """Seconds of each stage that was run; shared ones count for the first recipe."""
    return {f"{name}, s": artifact.provenance.wall_seconds for name, artifact in artifacts.items()}


# --- images where the data set is not at hand


def generated(folder: Path, count: int) -> Path:
    """Files in the format of Fashion-MNIST: a smooth pattern for each of ten classes, shifted, with noise."""
    folder.mkdir(parents=True)
    source = np.random.default_rng(0)
    patterns = np.kron(source.random((10, 7, 7)), np.ones((4, 4)))
    for (images, labels), rows in zip((IDX_FILES[:2], IDX_FILES[2:]), (count, count // 4), strict=True):
        classes = source.integers(0, 10, rows)
        shifts = source.integers(-3, 4, (rows, 2))
        pixels = np.stack(
            [np.roll(patterns[label], shift, (0, 1)) for label, shift in zip(classes, shifts, strict=True)]
        )
        pixels = np.clip(230 * pixels + source.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        (folder / images).write_bytes(struct.pack(">HBB3I", 0, 8, 3, rows, 28, 28) + pixels.tobytes())
        (folder / labels).write_bytes(struct.pack(">HBBI", 0, 8, 1, rows) + classes.astype(np.uint8).tobytes())
    return folder
