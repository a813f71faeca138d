"""`compare`: recipes side by side, in one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json
from flows.cli.output import print_json


def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE RECIPE ...", help="Recipes that have been run.")],
    out: Annotated[Path, typer.Option("--out", help="The plot: .png, .svg or .pdf.")] = Path("compare.png"),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json_: Json = False,
) -> None:
    """One table and plot of the Fréchet distance against network calls for several recipes of one protocol."""
    from pipeline.compare import compare as side_by_side
    from pipeline.dag import build
    from pipeline.load import load
    from pipeline.plan import sound
    from storage.errors import InputError
    from storage.store import Store

    store, evaluations = Store(), {}
    for name in recipes:
        recipe = load(name)
        artifact = sound(build(recipe, store.home / "cache")["evaluation"], store)
        if artifact is None:
            raise InputError("compare takes recipes that have been run", name, f"Run it: flowctl run {name}")
        evaluations[recipe.name] = artifact
    comparison = side_by_side(evaluations)
    if json_:
        print_json(comparison.to_json())
        return
    typer.echo(comparison.markdown() if markdown else comparison.text())
    comparison.plot(out)
    typer.echo(f"Plot: {out}")
