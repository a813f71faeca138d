"""`fid`: the Fréchet distance of any images to a recipe's data or to other images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json
from flows.cli.output import print_json
from storage.required import required


def fid(
    images: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE.npz", help="Images, or an .npz of arr_0 (NHWC or NCHW, uint8).")
    ],
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="RECIPE|FOLDER|FILE.npz",
            help="A recipe's training images in its feature space, or real images in Inception's.",
        ),
    ],
    json_: Json = False,
) -> None:
    """Measure the Fréchet distance of any images, with the protocol, floor and warnings of an evaluation."""
    from flows.session.recipes import exists, load
    from flows.session.session import Session
    from pipeline.engine.rerun import valid_artifact
    from storage.errors import MissingError

    stages = {}
    if exists(against):
        session = Session.finished(load(against))
        stages = {name: valid_artifact(session.nodes[name], session.store) for name in ("data", "reference")}
        for name, artifact in stages.items():
            if artifact is None:
                raise MissingError(
                    "fid needs a recipe with a reference",
                    f"no {name} of {against}",
                    f"Run: flowctl run {against} --until reference.",
                )
    elif not Path(against).exists():
        raise MissingError("--against must be a recipe, a folder or an .npz", against, "Check the name or the path.")

    from pipeline.evaluation.foreign import against_images, against_reference, read_images
    from pipeline.recipe.sections import Compute
    from pipeline.reporting.text.numbers import significant
    from pipeline.runtime.device import prepare

    device = prepare(session.recipe.compute if stages else Compute())
    behind = session.recipe.data.background if stages else "white"
    given = read_images(images, behind)
    if stages:
        score = against_reference(
            given, required(stages["data"], "data"), required(stages["reference"], "reference"), device
        )
    else:
        score = against_images(given, read_images(Path(against)), Path(against).name, device)
    if json_:
        print_json(asdict(score))
        return
    typer.echo(f"{score.protocol['metric']}: {significant(score.value, 4)}")
    typer.echo(f"floor (two halves of the real images): {significant(score.floor, 4)}")
    if score.held_out is not None:
        few = score.protocol["n_held_out"]
        typer.echo(f"held-out images of the data, {few}: {significant(score.held_out, 4)}")
    typer.echo("protocol: " + ", ".join(f"{key} {value}" for key, value in score.protocol.items()))
    for warning in score.warnings:
        typer.echo(f"warning: {warning}")
