"""Sample images from a recipe's finished network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from flows.session.session import Session
from flows.views.sample_files import Drawn
from flows.views.sample_request import STEPS, SampleRequest, check_guidance_acts, check_sampler, solver_of
from pipeline.data.conditions import TargetImages
from pipeline.data.levels import quantise
from pipeline.data.sources.text import normal, shown
from pipeline.engine.dag import Node
from pipeline.engine.rerun import valid_artifact
from pipeline.flow_matching.sampling import class_labels, start_of, student_velocity, teacher_samples
from pipeline.flow_matching.solvers import SOLVERS, Solver, calls_per_evaluation, integrate, plan_for_nfe
from pipeline.flow_matching.times import time_grid
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES, decoder, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.results import StudentResult, TeacherResult
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import Grid, usable_memory
from pipeline.runtime.device import prepare
from pipeline.runtime.seeds import derive
from storage.artifact import Artifact
from storage.errors import MissingError, UsageError
from storage.imageset import ImageSet
from storage.required import complete, required


def draw(recipe: Recipe, request: SampleRequest, name: str | None = None) -> Drawn:
    """Sample the images that are asked for. `name` is what the recipe's user calls it.

    A student with a condition draws the test images in turn, all or those of the requested class; one with a source
    starts from the source's test images, in an order that depends on the seed.
    """
    session = Session.finished(recipe)
    check_model(request.model, session)
    check_sampler(request, recipe)
    artifact, data = _finished(request.model, session, name), _finished("data", session, name)
    images = ImageSet.open(data.path(IMAGES))
    if not images.classes:
        check_guidance_acts(request, recipe)
    _check_count(request.count, images.originals.shape)
    device = prepare(recipe.compute)
    decode, levels = decoder(data, device), images.originals.grey_levels
    network = networks.load_network(artifact, device, request.ema)
    held_out = _held_out(recipe, images, request.class_)
    source = None if recipe.source is None else _finished("source", session, name)
    # Row i starts from the same noise in every model.
    start = start_of(derive(request.seed, "sample"), images.shape, source_examples(source, images, "test"), device)
    batches, used = [], []
    for rows in torch.arange(request.count).split(recipe.compute.inference_batch):
        if held_out is None:
            labels, condition = _labels(rows, request.class_, images.classes, device), None
        else:
            labels, condition = held_out.labels(rows, device), held_out.conditions(rows, device)
        x = decode(_images(network, artifact, recipe, request, rows, start, labels, condition, device))
        batches.append(quantise(x.cpu().numpy(), levels))
        used.append(labels)
    known = complete(used)
    numbers = torch.cat(known).cpu().numpy() if known else None
    return Drawn(np.concatenate(batches), numbers, levels, tuple(images.classes) if images.classes else None)


@torch.no_grad()
def _images(
    network, artifact: Artifact, recipe: Recipe, request: SampleRequest, rows, start, labels, condition, device
) -> torch.Tensor:
    if request.model == "teacher":
        config = required(recipe.teacher, "the teacher")
        if request.guidance is not None:
            config = config.model_copy(update={"guidance": request.guidance})
        if not config.guidance:  # what acts through it
            config = config.model_copy(update={"attention_temperature": 1.0, "annealed": False})
        schedules = networks.schedules_of(artifact, request.ema)
        return teacher_samples(network, rows, labels, derive(request.seed, "sample"), config, schedules, device)
    path = path_of(artifact)
    velocity = student_velocity(network, path, labels, request.weight, condition)
    solver, steps = _plan(request, recipe)
    spacing, temperature = _sampled_in(recipe, request.model)
    return integrate(velocity, path.start(temperature * start(rows)), path.times(time_grid(spacing, steps)), solver)


def _sampled_in(recipe: Recipe, model: str) -> tuple[Grid, float]:
    """The grid and temperature of the evaluation's sampler with the most steps, not one that chooses its own."""
    sweeps = [sweep for sweep in recipe.evaluation.sweeps_of(model) if sweep.nfe]
    if not sweeps:
        return "uniform", 1.0
    longest = max(sweeps, key=lambda sweep: max(sweep.nfe))
    return "uniform" if model == "onestep" else longest.grid, longest.temperature  # the times of its training


def _plan(request: SampleRequest, recipe: Recipe) -> tuple[Solver, int]:
    """The solver and its number of steps. Raises InputError where no number of steps costs `nfe` calls."""
    name = request.solver or solver_of(request.model, recipe)
    if request.nfe is not None:
        plan = plan_for_nfe(name, request.nfe, calls_per_evaluation(request.weight))
        return plan.solver, plan.steps
    trained = required(recipe.onestep, "onestep").steps if request.model == "onestep" else STEPS
    return SOLVERS[name](), request.steps or trained


def _finished(stage: str, session: Session, name: str | None) -> Artifact:
    own = session.recipe.name
    artifact = valid_artifact(session.nodes[stage], session.store)
    if artifact is None:
        raise MissingError(
            "sample needs a finished network",
            f"no {stage} of {own}",
            f"Run: flowctl run {name or own} --until {stage}.",
        )
    return artifact


def check_model(model: str, session: Session) -> None:
    """Raises UsageError where the recipe has no such network."""
    models = networks_of(session.nodes)
    if model not in models:
        raise UsageError(
            f"--model must be a network of {session.recipe.name}", model, f"Its networks: {', '.join(models)}."
        )


def _check_count(number: int, shape: tuple[int, int, int]) -> None:
    """Raises UsageError where the images would not fit the memory in which they are collected."""
    each = 2 * math.prod(shape) + 24  # in batches and joined; number and label
    if number > (most := usable_memory() // each):
        raise UsageError(f"--count must be at most {most:,}, images that fit the memory", f"{number:,}", "Lower it.")


def networks_of(nodes: Mapping[str, Node]) -> list[str]:
    """The stages, in the order of the DAG, whose result is a network that generates images."""
    return [name for name, node in nodes.items() if issubclass(node.stage.result, (TeacherResult, StudentResult))]


def _held_out(recipe: Recipe, images: ImageSet, class_: str | Sequence[str] | None) -> TargetImages | None:
    """The test images that a student with a condition has to draw. Raises UsageError for a class for each of them."""
    condition = recipe.student.condition
    targets = TargetImages.of(images, None if condition is None else condition.model_dump())
    if targets is None or class_ is None:
        return targets
    if not isinstance(class_, str):
        raise UsageError("A student with a condition draws test images, of one class or of all", class_, "Name one.")
    return targets.of_class(_class(class_, images.classes))


def _labels(
    rows: torch.Tensor, class_: str | Sequence[str] | None, classes: Sequence[str] | None, device: torch.device
) -> torch.Tensor | None:
    if class_ is None:
        return class_labels(rows, len(classes or ()), device)
    if isinstance(class_, str):
        return torch.full_like(rows, _class(class_, classes)).to(device)
    return torch.tensor([_class(class_[row], classes) for row in rows.tolist()], device=device)


def _class(name: str, classes: Sequence[str] | None) -> int:
    if not classes:
        raise UsageError("--class needs a class-conditional network", name, "Omit it.")
    if normal(name) in classes:
        return classes.index(normal(name))
    numbers = [str(number) for number in range(len(classes))]
    if name not in numbers or any(of_class.isdecimal() for of_class in classes):  # else 0 might be the class "1"
        raise UsageError("--class must be a class of the data", name, f"Its classes: {', '.join(map(shown, classes))}.")
    return int(name)
