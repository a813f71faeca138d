"""`show`: a recipe with all its defaults, the manifest of an artifact, or the fields that a recipe may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json
from pipeline.recipe.changes import one_line

if TYPE_CHECKING:
    from pipeline.recipe.recipe import Recipe
    from storage.artifact import Artifact
    from storage.store import Store


def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE|ARTIFACT", help="A recipe, or the name of an artifact or the start of its fingerprint."
        ),
    ] = None,
    set_: Sets = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="List the recipe's fields with type, choices, default and description.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print the reference page of all fields, as Markdown.")
    ] = False,
    json_: Json = False,
) -> None:
    """Print a recipe with all its defaults, as YAML that `run` accepts; or the manifest of an artifact."""
    from flows.session.recipes import exists, load
    from flows.views import fields
    from storage.errors import UsageError
    from storage.store import Store

    if schema or reference:
        if name is not None or set_ or explain or (schema and reference):
            got = " ".join(filter(None, (name, *(set_ or ()), "--explain" * explain))) or "both"
            raise UsageError("--schema and --reference are of all recipes, one at a time", got, "Leave the rest out.")
        if schema:
            print_json(fields.schema())
        else:
            typer.echo(fields.reference(), nl=False)
    elif name is None:
        raise UsageError("show needs a RECIPE, --schema or --reference", name, "Recipes: flowctl list.")
    elif exists(name):
        _show_recipe(load(name, set_ or ()), explain, json_)
    elif explain or set_:
        raise UsageError(f"{'--explain' if explain else '--set'} needs a recipe", name, "Recipes: flowctl list.")
    else:
        print_json(_find(name, Store()).model_dump(mode="json"))


def _show_recipe(recipe: Recipe, explain: bool, json_: bool) -> None:
    from dataclasses import asdict

    import yaml

    from flows.views import fields

    if explain and json_:
        print_json([asdict(field) for field in fields.explain(recipe)])
    elif explain:
        for field in fields.explain(recipe):
            default = "required" if field.default == fields.REQUIRED else f"default {field.default}"
            about = f". {field.description}" if field.description else ""
            typer.echo(f"{field.path}: {one_line(field.value)}\n    {field.type}; {default}{about}")
    elif json_:
        print_json(recipe.model_dump(mode="json"))
    else:
        typer.echo(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


def _find(name: str, store: Store) -> Artifact:
    """The artifact of this name or fingerprint. Raises MissingError with the nearest name."""
    from flows.session.recipes import names
    from flows.upkeep.references import named
    from storage.artifact import Artifact

    need = "show needs a recipe, the name of an artifact or six digits of its fingerprint"
    return Artifact.read(named(name, store, need, names()))
