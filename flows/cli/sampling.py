"""`sample`: images from a finished network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Recipe, Sets

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Which of the recipe's networks: student, onestep, teacher, or reflow-1 and so on.",
    ),
]


def sample(
    recipe: Recipe,
    set_: Sets = None,
    model: Model = "student",
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Solver steps; unless given those that a onestep was trained for, else 8."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", help="Solver; euler unless given, or jump for a MeanFlow student.")
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="Name or number of one class; all in turn unless given.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", min=0, help="Strength of classifier-free guidance; 1 is none (for the teacher 0)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise.")] = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="How many images.")] = 64,
    out: Annotated[Path, typer.Option("--out", help="A .png grid or an .npz of images and labels.")] = Path(
        "samples.png"
    ),
) -> None:
    """Draw images from a finished student, one-step student or teacher."""
    from flows.session.recipes import load
    from pipeline.recipe.load import nearest
    from storage.errors import InputError

    if out.suffix not in (".png", ".npz"):
        raise InputError("--out ends in .png (a grid) or .npz (all images)", str(out), "Choose one of them")
    if solver is not None and solver not in (known := ("euler", "midpoint", "heun", "rk4", "jump")):
        raise InputError("--solver takes steps of fixed length", solver, nearest(solver, known))
    from flows.views.samples import Wish, draw, write

    wish = Wish(model, steps, solver, class_, guidance, seed, count)
    images, labels, levels = draw(load(recipe, set_ or ()), wish)
    write(out, images, labels, levels)
    typer.echo(f"{count} images: {out}")
