"""`sample`: images from a finished network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Recipe, Sets
from flows.cli.output import check_out
from flows.session.commands import as_typed

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="Network of the recipe: student, onestep, teacher, or reflow-1, reflow-2, …"
    ),
]


def sample(
    recipe: Recipe,
    set_: Sets = None,
    model: Model = "student",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, max=2**20, help="Number of solver steps; default 8, for onestep its trained number."
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option("--solver", help="euler (default), midpoint, heun or rk4; jump (default) for MeanFlow."),
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="Name or number of a class; default: all classes in turn.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", min=0, help="Scale of classifier-free guidance; 1 means none (teacher: 0)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")] = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of images.")] = 64,
    ema: Annotated[
        str | None,
        typer.Option("--ema", metavar="NAME", help="Average of the weights: a name in training.averages, or best."),
    ] = None,
    grid: Annotated[int | None, typer.Option("--grid", min=1, help="Columns of the picture.")] = None,
    out: Annotated[
        Path, typer.Option("--out", help="A .png picture, an .npz as ADM writes it, or a folder of PNG files.")
    ] = Path("samples.png"),
) -> None:
    """Draw images from a finished student, one-step student or teacher."""
    from flows.session.recipes import load
    from storage.errors import UsageError

    if out.suffix not in ("", ".png", ".npz"):
        raise UsageError("--out must end in .png or .npz, or name a folder", str(out), "Change the file name.")
    check_out(out, folder=not out.suffix)
    if grid is not None and out.suffix != ".png":
        raise UsageError("--grid needs a picture", str(out), "Omit --grid, or end --out in .png.")
    from flows.views.sample_files import write
    from flows.views.sample_request import SampleRequest
    from flows.views.samples import draw

    request = SampleRequest(model, steps, solver, class_, guidance, seed, count, ema)
    write(out, draw(load(recipe, set_ or ()), request, as_typed(recipe, set_)), grid)
    typer.echo(f"{count} images: {out}")
