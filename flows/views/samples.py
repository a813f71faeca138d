"""Images from a recipe's finished network, to a grid or an archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flows.session.session import Session
from models.tarflow import schedule_from_dict
from pipeline.data.conditions import TargetImages
from pipeline.engine.dag import Node
from pipeline.engine.rerun import valid_artifact
from pipeline.flow_matching.sampling import class_labels, start_of, student_velocity, teacher_samples
from pipeline.flow_matching.solvers import SOLVERS, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.metrics import quantise
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES, decoder, source_examples
from pipeline.outputs.networks import path_of
from pipeline.outputs.results import StudentResult, TeacherResult
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.pictures import grid, png
from pipeline.runtime.device import prepare
from pipeline.runtime.seeds import derive
from storage.artifact import Artifact
from storage.atomic import replacing
from storage.errors import InputError
from storage.imageset import ImageSet


@dataclass(frozen=True)
class Wish:
    """What is asked for; `steps` are those that the model was trained for, or 8, unless given, by Euler's method.

    A student of average velocities jumps unless another solver is given.
    """

    model: str
    steps: int | None
    solver: str | None
    class_: str | None
    guidance: float | None
    seed: int
    count: int


def draw(recipe: Recipe, wish: Wish) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Grey levels (N, C, H, W) uint8, labels (N,) or None, and the number of levels.

    A student with a condition is asked for the test images in turn, those of the class wished for; one with a source
    starts from the source's test images, in an order that follows from the seed.
    """
    session = Session.finished(recipe)
    check_model(wish.model, session)
    _check_way(wish, recipe)
    artifact, data = _finished(wish.model, session), _finished("data", session)
    images = ImageSet.open(data.path(IMAGES))
    device = prepare(recipe.compute)
    decode, levels = decoder(data, device), images.originals.levels
    network = networks.load_network(artifact, device)
    held_out = _held_out(recipe, images, wish.class_)
    source = None if recipe.source is None else _finished("source", session)
    # Row i starts from the same noise in every model.
    start = start_of(derive(wish.seed, "sample"), images.shape, source_examples(source, images, "test"), device)
    made, used = [], []
    for rows in torch.arange(wish.count).split(recipe.compute.inference_batch):
        if held_out is None:
            labels, condition = _labels(rows, wish.class_, images.classes, device), None
        else:
            labels, condition = held_out.labels(rows, device), held_out.conditions(rows, device)
        x = decode(_images(network, artifact, recipe, wish, rows, start, labels, condition, device))
        made.append(quantise(x.cpu().numpy(), levels))
        used.append(labels)
    labels = None if used[0] is None else torch.cat(used).cpu().numpy()
    return np.concatenate(made), labels, levels


@torch.no_grad()
def _images(
    network, artifact: Artifact, recipe: Recipe, wish: Wish, rows, start, labels, condition, device
) -> torch.Tensor:
    if wish.model == "teacher":
        config = recipe.teacher
        if wish.guidance is not None:
            config = config.model_copy(update={"guidance": wish.guidance})
        schedules = [schedule_from_dict(fields) for fields in artifact.metrics["schedule"]]
        return teacher_samples(network, rows, labels, derive(wish.seed, "sample"), config, schedules, device)
    path = path_of(artifact)
    velocity = student_velocity(network, path, labels, 1.0 if wish.guidance is None else wish.guidance, condition)
    named, steps = (recipe.pairs or recipe.evaluation.student[0]).grid, wish.steps or 8
    if wish.model == "onestep":
        named, steps = "uniform", wish.steps or recipe.onestep.steps  # the times that it was trained at
    grid = path.times(time_grid(named, steps))
    return integrate(velocity, path.start(start(rows)), grid, SOLVERS[wish.solver or _solver(wish.model, recipe)]())


def _solver(model: str, recipe: Recipe) -> str:
    """The solver of a model unless another one is asked for."""
    jumps = {"student": recipe.student.objective.kind, "onestep": recipe.onestep and recipe.onestep.mode}
    return "jump" if jumps.get(model) == "meanflow" else "euler"


def _finished(stage: str, session: Session) -> Artifact:
    name = session.recipe.name
    artifact = valid_artifact(session.nodes[stage], session.store)
    if artifact is None:
        raise InputError(
            "sample needs a finished network",
            f"{stage} of {name}, which is not made yet",
            f"Make it: flowctl run {name} --until {stage}",
        )
    return artifact


def check_model(model: str, session: Session) -> None:
    """Raises InputError where the recipe has no such network."""
    known = networks_of(session.nodes)
    if model not in known:
        raise InputError(
            f"--model names a network of recipe {session.recipe.name}", model, f"It has {', '.join(known)}"
        )


def _check_way(wish: Wish, recipe: Recipe) -> None:
    """Raises InputError for what the network has no use for, or has never learned."""
    if wish.model == "teacher":
        if wish.steps is not None or wish.solver is not None:
            raise InputError(
                "The teacher is inverted block by block, not integrated", _asked(wish), "Leave --steps and --solver out"
            )
        return
    if wish.solver == "jump" and _solver(wish.model, recipe) != "jump":
        raise InputError(
            "The solver jump needs a student of average velocities", wish.model, "Train with student.objective=meanflow"
        )
    distilled = wish.model == "onestep" and recipe.onestep.mode == "distil"
    if distilled and (wish.steps not in (None, recipe.onestep.steps) or wish.solver not in (None, "euler")):
        raise InputError(
            f"A student distilled to so many Euler steps, here {recipe.onestep.steps}, has learned those alone",
            _asked(wish),
            "Leave --steps and --solver out",
        )
    if wish.guidance in (None, 1):
        return
    if wish.model != "student":
        raise InputError(
            "Students of pairs always know the class, and guidance asks without it",
            f"--guidance {wish.guidance:g}",
            "Leave --guidance out",
        )
    if recipe.student.label_drop == 0:
        raise InputError(
            "Guidance also asks without a class, which is learned from images whose label is dropped",
            f"--guidance {wish.guidance:g} with student.label_drop 0",
            "Leave --guidance out",
        )


def _asked(wish: Wish) -> str:
    given = {"--steps": wish.steps, "--solver": wish.solver}
    return " ".join(f"{name} {value}" for name, value in given.items() if value is not None)


def networks_of(nodes: Mapping[str, Node]) -> list[str]:
    """The nodes, in the order of the DAG, whose result is a network that makes images."""
    return [name for name, node in nodes.items() if issubclass(node.stage.result, (TeacherResult, StudentResult))]


def _held_out(recipe: Recipe, images: ImageSet, wanted: str | None) -> TargetImages | None:
    """The test images that a student with a condition is asked for."""
    condition = recipe.student.condition
    found = TargetImages.of(images, None if condition is None else condition.model_dump())
    return found if found is None or wanted is None else found.of_class(_class(wanted, images.classes))


def _labels(rows, wanted: str | None, classes: list[str] | None, device) -> torch.Tensor | None:
    if wanted is None:
        return class_labels(rows, len(classes or ()), device)
    return torch.full_like(rows, _class(wanted, classes)).to(device)


def _class(wanted: str, classes: list[str] | None) -> int:
    if not classes:
        raise InputError("--class needs a network that knows classes", wanted, "Leave it out")
    numbers = [str(number) for number in range(len(classes))]
    if wanted not in classes and wanted not in numbers:
        raise InputError("--class is one of the data's classes", wanted, f"They are {', '.join(classes)}")
    return classes.index(wanted) if wanted in classes else int(wanted)


def write(out: Path, images: np.ndarray, labels: np.ndarray | None, levels: int) -> None:
    """A PNG grid, as square as it can be, or an .npz of `images` and `labels`."""
    with replacing(out) as aside, open(aside, "wb") as stream:
        if out.suffix == ".npz":
            arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
            np.savez(stream, levels=levels, **arrays)
        else:
            columns = math.ceil(math.sqrt(len(images)))
            stream.write(png(grid(images, columns, levels=levels)))
