"""`export`: a finished network as a directory that loads without flowctl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Recipe, Sets
from flows.cli.sample import Model
from flows.session.commands import as_typed


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
            help="Average of the weights: a name in training.averages, or best; default: the first.",
        ),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also write the velocity network as ONNX, and check it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing export.")] = False,
) -> None:
    """Write a finished network as safetensors, JSON and a model card. PyTorch, safetensors and `models` load it."""
    from flows.session.display import display
    from flows.session.recipes import load
    from flows.session.session import Session
    from flows.views.samples import check_model
    from pipeline.engine.rerun import valid_artifact
    from storage.errors import MissingError

    session = Session.finished(load(recipe, set_ or ()))
    name, nodes = session.recipe.name, session.nodes
    check_model(model, session)
    artifacts = {stage: artifact for stage, node in nodes.items() if (artifact := valid_artifact(node, session.store))}
    for stage in ("data", model):
        if stage not in artifacts:
            raise MissingError(
                "export needs a finished network",
                f"no {stage} of {name}",
                f"Run: flowctl run {as_typed(recipe, set_)} --until {model}.",
            )

    from pipeline.export import Subject
    from pipeline.export import export as write
    from pipeline.outputs.networks import stored_name
    from pipeline.runtime.device import prepare

    compute = session.recipe.compute
    average = stored_name(artifacts[model], ema)
    subject = Subject(name, model, average, artifacts, session.recipe.evaluation.sweeps_of(model))
    with display() as shown:
        shown.begin("export")
        device, batch = prepare(compute), compute.inference_batch
        write(subject, out, onnx, force, device, batch, lambda file: shown.note(f"export: writing {file}"))
    typer.echo(f"{name}, {model}: {out}\nModel card and loading script: {out / 'README.md'}")
