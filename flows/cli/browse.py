"""`list` and `show`: which recipes and artifacts there are, and what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from storage.artifact import Artifact
    from storage.store import Store


def list_() -> None:
    """The recipes that can be run, and the artifacts in the store with their sizes."""
    from flows import words
    from pipeline.load import load, shipped
    from storage.errors import DamageError
    from storage.store import Store

    print_table(("RECIPE", "DESCRIPTION"), [(name, load(name).description) for name in shipped()])
    store = Store()
    rows, total = [], 0
    for found in store.artifacts():
        if isinstance(found, DamageError):
            rows.append((str(Path(found.what)), "", "", f"damaged: {found.found}"))
            continue
        size = sum(record.size for record in found.files)
        total += size
        created = found.provenance.created[:16].replace("T", " ")
        rows.append((_name(found), words.size(size), created, words.duration(found.provenance.wall_seconds)))
    typer.echo()
    if rows:
        print_table(("ARTIFACT", "SIZE", "MADE", "IN"), rows)
        typer.echo(f"{words.size(total)} in {len(rows)} artifacts in {store.home}")
    else:
        typer.echo(f"No artifacts yet in {store.home}")


def show(name: Annotated[str, typer.Argument(metavar="RECIPE|ARTIFACT", help="A recipe, or an artifact's name or the "
                                             "beginning of its fingerprint.")],
         set_: Sets = None, json_: Json = False) -> None:
    """A recipe with all its defaults, as YAML that `run` takes; or the manifest of an artifact."""
    from pipeline.load import load, shipped
    from storage.store import Store

    if name in shipped() or name.endswith((".yaml", ".yml")):
        recipe = load(name, set_ or ()).model_dump(mode="json")
        if json_:
            print_json(recipe)
        else:
            import yaml
            typer.echo(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), nl=False)
    else:
        print_json(_find(name, Store()).model_dump(mode="json"))


def _find(name: str, store: Store) -> Artifact:
    """The artifact of this name or fingerprint. Raises InputError with the nearest one that there is."""
    from pipeline.load import nearest, shipped
    from storage.artifact import Artifact
    from storage.errors import InputError

    known = [found for found in store.artifacts() if isinstance(found, Artifact)]
    hits = [found for found in known if name.rstrip("/") in (_name(found), found.root.name, str(found.root))
            or (len(name) >= 6 and found.fingerprint.startswith(name))]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError("A name must mean one artifact", name, f"It could be {', '.join(map(_name, hits))}")
    raise InputError("show takes a recipe, an artifact's name or six digits of its fingerprint", name,
                     nearest(name, [*shipped(), *map(_name, known)]))


def _name(artifact: Artifact) -> str:
    return f"{artifact.stage}/{artifact.root.name}"
