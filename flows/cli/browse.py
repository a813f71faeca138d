"""`list` and `show`: which recipes and artifacts there are, and what is in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from storage.artifact import Artifact
    from storage.store import Store


def list_(
    remote: Annotated[bool, typer.Option("--remote", help="The artifacts at $FLOWCTL_REMOTE instead.")] = False,
) -> None:
    """The recipes that can be run, what is made and being made in the store, and the room that it takes."""
    if remote:
        _list_remote()
        return
    from flows.session import words
    from pipeline.recipe.load import load, shipped
    from storage.garbage import room
    from storage.store import Store

    print_table(("RECIPE", "DESCRIPTION"), [(name, load(name).description) for name in shipped()])
    store = Store()
    made, working = _artifacts(store), _work(store)
    typer.echo()
    if made:
        print_table(("ARTIFACT", "SIZE", "MADE", "IN"), [(name, words.size(size), *rest) for name, size, *rest in made])
    else:
        typer.echo(f"No artifacts yet in {store.home}")
    if working:
        typer.echo()
        print_table(
            ("WORK IN PROGRESS", "SIZE", "STATE"), [(name, words.size(size), state) for name, size, state in working]
        )
    if made or working:
        parts = [sum(row[1] for row in rows) for rows in (made, working)]
        every = room(store.home).size
        typer.echo(
            f"\n{words.size(parts[0])} in {len(made)} artifacts, {words.size(parts[1])} in work, "
            f"{words.size(every - sum(parts))} in records, monitors and caches: {words.size(every)} in "
            f"{store.home}"
        )


def _list_remote() -> None:
    from flows.session import words
    from flows.upkeep.remote import named, title
    from storage.errors import DamageError

    place, rows, total = named(), [], 0
    for stage, fingerprint in place.keys():  # noqa: SIM118 - it is no dict
        try:
            artifact = place.find(stage, fingerprint)
        except DamageError as damage:
            rows.append((title(stage, fingerprint), "", "", f"damaged: {damage.what}: {damage.found}"))
            continue
        if artifact is None:
            rows.append(
                (title(stage, fingerprint), "", "", "not complete: the run that sends it has not ended, or was stopped")
            )
            continue
        size = sum(record.size for record in artifact.files)
        made = artifact.provenance.created[:16].replace("T", " ")
        rows.append((title(stage, fingerprint, artifact.name), words.size(size), made, place.address(artifact)))
        total += size
    if rows:
        print_table(("ARTIFACT", "SIZE", "MADE", "AT"), rows)
        typer.echo(f"\n{words.size(total)} in {place.url}")
    else:
        typer.echo(f"No artifacts yet in {place.url}")


def _artifacts(store: Store) -> list[tuple[str, int, str, str]]:
    """Name, bytes, when it was made, and in what time or why it cannot be used."""
    from flows.session import words
    from flows.upkeep.references import title
    from storage.artifact import Artifact
    from storage.errors import DamageError
    from storage.garbage import room

    rows = []
    for root in store.roots():
        try:
            facts = Artifact.read(root).provenance
            rest = facts.created[:16].replace("T", " "), words.duration(facts.wall_seconds)
        except DamageError as damage:
            rest = "", f"damaged: {damage.what}: {damage.found}"
        rows.append((title(root), room(root).size, *rest))
    return rows


def _work(store: Store) -> list[tuple[str, int, str]]:
    """Name, bytes, and how far it is."""
    from flows.upkeep.references import title
    from flows.upkeep.status import unfinished
    from storage.garbage import room

    told = {(item["stage"], item["fingerprint"]): item for item in reversed(unfinished(store))}
    rows = []
    for work in store.works():
        item, state = told.get((work.parent.name, work.name)), "nothing to go on from: `flowctl gc` removes it in time"
        if item is not None:
            saved, state = item["saved"], item["state"]
            if saved is not None:
                state += f", {saved['done']:,} of {saved['total']:,} {saved['unit']} saved"
        rows.append((title(work), room(work).size, state))
    return rows


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|ARTIFACT", help="A recipe, or an artifact's name or the beginning of its fingerprint."
        ),
    ],
    set_: Sets = None,
    json_: Json = False,
) -> None:
    """A recipe with all its defaults, as YAML that `run` takes; or the manifest of an artifact."""
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
    """The artifact of this name or fingerprint. Raises InputError with the nearest one that there is."""
    from flows.session.recipes import names
    from pipeline.recipe.load import nearest
    from storage.artifact import Artifact
    from storage.errors import InputError

    known = [found for found in store.artifacts() if isinstance(found, Artifact)]
    hits = [
        found
        for found in known
        if name.rstrip("/") in (_name(found), found.root.name, str(found.root))
        or (len(name) >= 6 and found.fingerprint.startswith(name))
    ]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError("A name must mean one artifact", name, f"It could be {', '.join(map(_name, hits))}")
    raise InputError(
        "show takes a recipe, an artifact's name or six digits of its fingerprint",
        name,
        nearest(name, [*names(), *map(_name, known)]),
    )


def _name(artifact: Artifact) -> str:
    return f"{artifact.stage}/{artifact.root.name}"
