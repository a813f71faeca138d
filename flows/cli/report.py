"""`report`: the finished report of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import Recipe, Sets
from flows.session.commands import as_typed


def report(
    recipe: Recipe,
    set_: Sets = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
) -> None:
    """Print the path of a recipe's finished report, one HTML file."""
    from flows.session.recipes import load
    from flows.session.session import Session
    from pipeline.engine.rerun import valid_artifact
    from storage.errors import MissingError

    session = Session.finished(load(recipe, set_ or ()))
    artifact = valid_artifact(session.nodes["report"], session.store)
    if artifact is None:
        raise MissingError("report needs a finished run", recipe, f"Run: flowctl run {as_typed(recipe, set_)}.")
    page = artifact.path(artifact.metrics["page"])
    typer.echo(str(page))
    if open_:
        typer.launch(page.as_uri())
