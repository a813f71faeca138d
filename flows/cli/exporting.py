"""`export`: a finished network as a directory that can be passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Recipe, Sets
from flows.cli.sampling import Model


def export(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty directory.")],
    set_: Sets = None,
    model: Model = "student",
    ema: Annotated[
        str | None,
        typer.Option(
            "--ema",
            metavar="NAME",
            help="Which average of the weights, by its name in training.averages; the first unless given.",
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write the velocity network in ONNX too, and check it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a finished network with its results: safetensors, JSON, a model card. PyTorch alone loads it."""
    from flows.session.recipes import load
    from flows.session.session import Session
    from flows.views.samples import check_model
    from pipeline.engine.rerun import valid_artifact
    from storage.errors import InputError

    session = Session.finished(load(recipe, set_ or ()))
    name, nodes = session.recipe.name, session.nodes
    check_model(model, session)
    made = {stage: found for stage, node in nodes.items() if (found := valid_artifact(node, session.store)) is not None}
    for stage in ("data", model):
        if stage not in made:
            raise InputError(
                "export takes a finished network",
                f"{stage} of {name}, which is not made yet",
                f"Make it: flowctl run {recipe} --until {model}",
            )

    from pipeline.export import Subject
    from pipeline.export import export as write
    from pipeline.runtime.device import prepare

    training, compute = made[model].config["training"], session.recipe.compute
    average = None if ema == f"half-life-{training['ema']}" else ema
    sweeps = () if model == "teacher" else getattr(session.recipe.evaluation, model.partition("-")[0])
    subject = Subject(name, model, average, made, sweeps)
    write(subject, out, onnx, force, prepare(compute), compute.inference_batch)
    typer.echo(f"{name}, {model}: {out}\nIts card, with the script that loads it: {out / 'README.md'}")
