"""`show`: a recipe with all its defaults, or the manifest of an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json

if TYPE_CHECKING:
    from storage.artifact import Artifact
    from storage.store import Store


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|ARTIFACT", help="A recipe, or the name of an artifact or the start of its fingerprint."
        ),
    ],
    set_: Sets = None,
    json_: Json = False,
) -> None:
    """Print a recipe with all its defaults, as YAML that `run` accepts; or the manifest of an artifact."""
    from flows.session.recipes import known, load
    from storage.store import Store

    if known(name):
        recipe = load(name, set_ or ()).model_dump(mode="json")
        if json_:
            print_json(recipe)
        else:
            import yaml

            typer.echo(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), nl=False)
    else:
        print_json(_find(name, Store()).model_dump(mode="json"))


def _find(name: str, store: Store) -> Artifact:
    """The artifact of this name or fingerprint. Raises MissingError with the nearest name, UsageError for several."""
    from flows.session.recipes import names
    from flows.upkeep.references import named, title
    from pipeline.recipe.load import nearest
    from storage.artifact import Artifact
    from storage.errors import MissingError

    root = named(name, store)
    if root is None:
        raise MissingError(
            "show needs a recipe, the name of an artifact or six digits of its fingerprint",
            name,
            nearest(name, [*names(), *map(title, store.roots())]),
        )
    return Artifact.read(root)
