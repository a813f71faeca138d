"""Samples from finished networks. Sample number i starts from the same noise, or source image, in every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.tarflow import Guidance, Schedule, TarFlow, decode, denoise, full_precision
from pipeline.data.conditions import TargetImages
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR, GaussianPath, velocity_of
from pipeline.flow_matching.solvers import (
    CountedField,
    Dopri5,
    Guided,
    Solver,
    Velocity,
    calls_per_evaluation,
    integrate,
    plan_for_nfe,
    trajectory,
)
from pipeline.flow_matching.times import time_grid
from pipeline.recipe.sections import ADAPTIVE, Sweep, Teacher
from pipeline.runtime.device import same_bits
from pipeline.runtime.noise import noise
from pipeline.runtime.seeds import generator
from storage.imageset import ImageSet

TOLERANCE = 1e-5  # of dopri5, relative and absolute; usual in the literature
DOPRI5_WALK_STEPS = 8  # of the grid on which a walk by dopri5 returns its states

#: Numbers of samples (n,) int64 -> their z (n, C, H, W) at t = 1.
Start = Callable[[Tensor], Tensor]


def class_labels(rows: Tensor, classes: int, device: torch.device | str = "cpu") -> Tensor | None:
    """(N,) labels that cycle through the classes, None for an unconditional network."""
    return (rows % classes).to(device) if classes else None


def conditioning_for(
    rows: Tensor, images: ImageSet, targets: TargetImages | None, device: torch.device | str = "cpu"
) -> tuple[Tensor | None, Tensor | None]:
    """Labels (N,) and conditions (N, C, H, W) of samples in pictures: all classes in turn, or those of test images."""
    if targets is None:
        return class_labels(rows, len(images.classes or ()), device), None
    return targets.labels(rows, device), targets.conditions(rows, device)


def starting_noise(seed: int, rows: Tensor, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """(N, *shape) float32: the noise of samples number `rows`, independent of the rest of the batch."""
    return noise(seed, rows, torch.zeros_like(rows), shape, device=device)


def starting_images(seed: int, rows: Tensor, source: Examples, device: torch.device | str = "cpu") -> Tensor:
    """(N, C, H, W) float32: the source images of samples number `rows`: all in turn, in a random order.

    Sample number i and sample number i + len(source) start from the same one.
    """
    order = torch.randperm(len(source), generator=generator(seed, "source"))
    return source.pixels(order[rows % len(source)]).to(device)


def start_of(seed: int, shape: tuple[int, ...], source: Examples | None, device: torch.device | str = "cpu") -> Start:
    """The start of samples: noise of this shape (C, H, W), or images of the source if there is one."""
    if source is None:
        return lambda rows: starting_noise(seed, rows, shape, device)
    return partial(starting_images, seed, source=source, device=device)


def student_velocity(
    network: nn.Module,
    path: GaussianPath,
    labels: Tensor | None,
    guidance: float = 1.0,
    condition: Tensor | None = None,
) -> Velocity:
    """The velocity (x_t, t) -> v of a student's ODE. Guidance is about classes: both of its calls are given the
    condition (B, C, H, W), if there is one."""
    field = velocity_of(network, path)
    return Guided(field if condition is None else partial(field, condition=condition), labels, guidance)


@torch.no_grad()
def student_samples(
    network: nn.Module,
    z: Tensor,
    labels: Tensor | None,
    how: Sweep,
    nfe: int,
    path: GaussianPath = LINEAR,
    condition: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Images (N, C, H, W) float32 from z, noise or images of a source, and the network calls that were counted.

    The grid runs from t = 1, where the path starts from T z with the temperature T of `how`, to path.t_end.
    """
    velocity = CountedField(student_velocity(network, path, labels, how.guidance, condition))
    solver, steps = planned(how, nfe)
    grid = path.times(time_grid(how.grid, steps))
    return integrate(velocity, path.start(how.temperature * z), grid, solver), velocity.calls


@torch.no_grad()
def student_walk(
    network: nn.Module,
    z: Tensor,
    labels: Tensor | None,
    how: Sweep,
    nfe: int,
    path: GaussianPath = LINEAR,
    condition: Tensor | None = None,
) -> tuple[list[float], list[Tensor]]:
    """The times of `student_samples`, falling from 1, and x_t (N, C, H, W) at each; the last are its images.

    Dopri5 chooses its own steps; its states are those at `DOPRI5_WALK_STEPS` steps of the grid.
    """
    solver, steps = planned(how, nfe)
    grid = path.times(time_grid(how.grid, DOPRI5_WALK_STEPS if how.solver == ADAPTIVE else steps))
    velocity = student_velocity(network, path, labels, how.guidance, condition)
    return grid.tolist(), trajectory(velocity, path.start(how.temperature * z), grid, solver)


def planned(how: Sweep, nfe: int) -> tuple[Solver, int]:
    """The solver and its steps for `nfe` network calls; dopri5 ignores `nfe` and takes one step of the grid."""
    if how.solver == ADAPTIVE:
        return Dopri5(TOLERANCE, TOLERANCE), 1
    plan = plan_for_nfe(how.solver, nfe, calls_per_evaluation(how.guidance))
    return plan.solver, plan.steps


def guidance_of(config: Teacher) -> Guidance | None:
    """The guidance of the teacher's samples, None for none."""
    return Guidance(config.guidance, config.annealed) if config.guidance else None


@torch.no_grad()
def teacher_samples(
    flow: TarFlow,
    rows: Tensor,
    labels: Tensor | None,
    seed: int,
    config: Teacher,
    schedules: Sequence[Schedule],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Images (N, C, H, W) float32 by inverting the flow from its prior; `config.denoise` removes the training noise."""
    z = config.temperature * starting_noise(seed, rows, flow.config.shape, device)
    with full_precision(flow):
        y = decode(flow, z, labels, schedules, guidance_of(config), config.attention_temperature)
    if not config.denoise:
        return y
    with same_bits(z.device):
        return denoise(flow, y, labels, config.noise_std)
