"""The samplers under test: every model with every solver of its recipe, from the same noise and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from models.tarflow import Sequential
from pipeline.data.conditions import TargetImages
from pipeline.engine.dag import sampled_among
from pipeline.evaluation.evaluator import SamplerUnderTest
from pipeline.flow_matching.paths import GaussianPath
from pipeline.flow_matching.sampling import Start, student_samples, student_walk, teacher_samples
from pipeline.outputs import networks
from pipeline.outputs.networks import path_of
from pipeline.recipe import sections as configs
from pipeline.recipe.sections import ADAPTIVE, Evaluation, Sweep
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from storage.artifact import Artifact

ENLARGED = "enlarged"  # small images enlarged without a network: the baseline of super-resolution


def samplers(
    job: Job[Evaluation], start: Start, targets: TargetImages | None, device: torch.device
) -> Iterator[SamplerUnderTest]:
    """Teacher and baselines first, then student, rounds of reflow and one-step student, in the order of the recipe."""
    config = job.config
    if "teacher" in job.inputs and config.teacher:
        yield _teacher(job, derive(job.seed, "evaluation"), device)
    if targets is not None:
        yield SamplerUnderTest(
            ENLARGED, "repeated pixels", 0, {}, lambda rows, labels: (targets.conditions(rows, device), 0.0)
        )
        yield SamplerUnderTest(ENLARGED, "bicubic", 0, {}, lambda rows, labels: (targets.bicubic(rows).to(device), 0.0))
    load = lru_cache(maxsize=None)(lambda model, ema: networks.load_network(job.inputs[model], device, ema))
    for model in sampled_among(job.inputs):
        artifact = job.inputs[model]
        for how in config.sweeps_of(model):
            facts = {"grid": how.grid, "guidance": how.guidance, **trained(artifact, how.ema), **_path(artifact)}
            facts |= {} if how.temperature == 1 else {"temperature": how.temperature}
            facts |= {"sampled_together": job.compute.inference_batch} if how.solver == ADAPTIVE else {}
            for nfe in how.nfe or (0,):  # dopri5 chooses its calls
                make, walk = sampled(load(model, how.ema), path_of(artifact), how, nfe, start, targets, device)
                yield SamplerUnderTest(model, how.solver, nfe, facts, make, walk)


def sampled(
    network: nn.Module,
    path: GaussianPath,
    how: Sweep,
    nfe: int,
    start: Start,
    targets: TargetImages | None,
    device: torch.device,
) -> tuple[Callable, Callable]:
    """`make` and `walk` of a `SamplerUnderTest`."""

    def condition(rows: Tensor) -> Tensor | None:
        return None if targets is None else targets.conditions(rows, device)

    def make(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        return student_samples(network, start(rows), labels, how, nfe, path, condition(rows))

    def walk(rows: Tensor, labels: Tensor | None, z: Tensor | None = None) -> tuple[list[float], list[Tensor]]:
        return student_walk(network, start(rows) if z is None else z, labels, how, nfe, path, condition(rows))

    return make, walk


def _teacher(job: Job, seed: int, device: torch.device) -> SamplerUnderTest:
    teacher = job.inputs["teacher"]
    flow = networks.load_flow(teacher, device)
    config = configs.Teacher.model_validate(teacher.config)
    schedules = networks.schedules_of(teacher)

    def make(rows: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        return teacher_samples(flow, rows, labels, seed, config, schedules, device), 0.0

    facts = {
        "guidance": config.guidance,
        "annealed": config.annealed,
        "temperature": config.temperature,
        "attention_temperature": config.attention_temperature,
        "denoised": config.denoise,
        "noise": config.noise_std,
        **trained(teacher),
    }
    if any(schedule != Sequential() for schedule in schedules):
        facts["sampled_together"] = job.compute.inference_batch
    return SamplerUnderTest("teacher", "inverse", 0, facts, make)


def trained(artifact: Artifact, average: str | None = None) -> dict[str, Any]:
    """A protocol's fields of a network's training."""
    training = artifact.config["training"]
    return {"images_seen": training["images"], "ema": networks.average_in_words(artifact, average)}


def _path(artifact: Artifact) -> dict[str, Any]:
    """The path of a velocity, where it is not the straight one from the data to the noise."""
    spec = artifact.config.get("path", {"kind": "linear"})
    if spec["kind"] == "linear":
        return {}
    return {"path": " ".join([spec["kind"], *(f"{name} {value:g}" for name, value in spec.items() if name != "kind")])}
