"""Samples from finished networks. Sample number i starts from the same noise in every model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.tarflow import Guidance, Schedule, TarFlow, decode, denoise, full_precision
from pipeline.configs import Sweep, Teacher
from pipeline.noise import noise
from pipeline.paths import LINEAR, GaussianPath, gaussian_path, velocity_of
from pipeline.solvers import CountedField, calls_per_evaluation, guided, integrate, make_solver, plan_for_nfe
from pipeline.times import time_grid
from storage.artifact import Artifact

TOLERANCE = 1e-5  # of dopri5, relative and absolute: the literature's


def class_labels(rows: Tensor, classes: int, device: torch.device | str = "cpu") -> Tensor | None:
    """(N,) labels that go round the classes, None for an unconditional network."""
    return (rows % classes).to(device) if classes else None


def starting_noise(seed: int, rows: Tensor, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """(N, *shape) float32: the noise of samples number `rows`, whatever else is in the batch."""
    return noise(seed, rows, torch.zeros_like(rows), shape).to(device)


@torch.no_grad()
def student_samples(network: nn.Module, z: Tensor, labels: Tensor | None, how: Sweep, nfe: int,
                    path: GaussianPath = LINEAR) -> tuple[Tensor, float]:
    """Images (N, C, H, W) float32 from noise z, and the network calls that were really made.

    The grid runs from t = 1, where the path starts from z, to path.t_end.
    """
    velocity = CountedField(guided(velocity_of(network, path), labels, how.guidance))
    if how.solver == "dopri5":
        solver, steps = make_solver("dopri5", rtol=TOLERANCE, atol=TOLERANCE), 1
    else:
        plan = plan_for_nfe(how.solver, nfe, calls_per_evaluation(how.guidance))
        solver, steps = plan.solver, plan.steps
    grid = path.times(time_grid(how.grid, steps))
    return integrate(velocity, path.start(z), grid, solver), velocity.calls


def path_of(artifact: Artifact) -> GaussianPath:
    """The path that a student's velocity belongs to. Pairs of a flow lie on straight lines."""
    return gaussian_path(artifact.config.get("path", {"kind": "linear"}))


def guidance_of(config: Teacher) -> Guidance | None:
    """How the teacher's samples are guided; None for not at all."""
    return Guidance(config.guidance, config.annealed) if config.guidance else None


@torch.no_grad()
def teacher_samples(flow: TarFlow, rows: Tensor, labels: Tensor | None, seed: int, config: Teacher,
                    schedules: Sequence[Schedule], device: torch.device | str = "cpu") -> Tensor:
    """Images (N, C, H, W) float32 by inverting the flow from its prior, the training noise removed if asked."""
    z = config.temperature * starting_noise(seed, rows, flow.config.shape, device)
    with full_precision(flow):
        y = decode(flow, z, labels, schedules, guidance_of(config), config.attention_temperature)
    clean = config.denoise and config.dequantisation == "gaussian"
    return denoise(flow, y, labels, config.noise) if clean else y
