"""`compare`: recipes side by side, in one table and one plot."""

from __future__ import annotations

from typing import Annotated

import typer


def compare(recipes: Annotated[list[str], typer.Argument(metavar="RECIPE RECIPE ...", help="Recipes that have been "
                                                         "run.")]) -> None:
    """One table and plot of the Fréchet distance against network calls for several recipes of one protocol."""
    from pipeline.compare import compare as compare_recipes
    from pipeline.load import load
    from storage.store import Store

    comparison = compare_recipes(Store(), [load(recipe) for recipe in recipes])
    typer.echo(comparison.table())
    typer.echo(f"Plot: {comparison.plot}")
