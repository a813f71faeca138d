"""`verify`: read every byte of every artifact and hold it against its recorded digest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from storage.artifact import Artifact
    from storage.errors import DamageError


def verify(recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Only what this recipe uses.")] = None,
           ) -> None:
    """Check every file of every artifact. Exit code 1 if any is damaged; each is named."""
    from rich.console import Console
    from rich.progress import track

    from storage.errors import DamageError, FlowctlError

    artifacts = _artifacts(recipe)
    damaged = 0
    for found in track(artifacts, "verifying", console=Console(stderr=True), transient=True,
                       disable=not sys.stderr.isatty()):
        problems = [str(found)] if isinstance(found, DamageError) else [
            f"{found.root}: {problem}" for problem in found.problems()]
        damaged += bool(problems)
        for problem in problems:
            typer.echo(f"damaged: {problem}")
    if damaged:
        raise FlowctlError(f"{damaged} of {len(artifacts)} artifacts damaged. Remove them and run the same command "
                           "again: they are made anew from their inputs")
    files = sum(len(found.files) for found in artifacts)
    typer.echo(f"{len(artifacts)} artifacts, {files} files: every digest holds.")


def _artifacts(recipe: str | None) -> list[Artifact | DamageError]:
    from flows.session import Session
    from pipeline.load import load
    from pipeline.plan import sound
    from storage.errors import DamageError
    from storage.store import Store

    if recipe is None:
        return list(Store().artifacts())
    session = Session.open(load(recipe))
    found = []
    for node in session.nodes.values():
        try:
            artifact = sound(node, session.store)
        except DamageError as damage:
            artifact = damage
        if artifact is not None:
            found.append(artifact)
    return found
