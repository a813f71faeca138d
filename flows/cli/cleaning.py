"""`gc` and `rm`: remove what nobody needs, or what one no longer wants. Without --yes they only say what would go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import print_table

if TYPE_CHECKING:
    from flows.upkeep.references import NewRuns, Run
    from storage.garbage import Item
    from storage.store import Key, Store

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is removed.")]


def gc(
    yes: Yes = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Leave what was touched in so many days.")
    ] = 30.0,
) -> None:
    """Remove what no run refers to, stopped work that nobody went on with, and leftovers. `rm` makes a run go."""
    from flows.upkeep.references import NewRuns, every_run, users
    from storage.errors import FlowctlError
    from storage.garbage import garbage
    from storage.store import Store

    store, known, kept = Store(), [], None
    newcomers = NewRuns(store)
    try:
        known = every_run(store)
        kept = {key for run in known for key in run.keys}
    except FlowctlError as error:
        typer.echo(f"note: {error}. Until then every artifact is kept")
    _remove(store, list(garbage(store, kept, older_than)), users(store, known), newcomers, yes)


def rm(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE|ARTIFACT", help="A recipe's name, or STAGE/NAME of one artifact.")
    ],
    yes: Yes = False,
) -> None:
    """Remove a recipe's artifacts that no other run refers to, and its runs; or one artifact."""
    from flows.upkeep.references import NewRuns, every_run, named, of_recipe, users
    from storage.errors import InputError
    from storage.garbage import belongings, reachable
    from storage.store import PREFIX, Store

    store = Store()
    newcomers = NewRuns(store)
    known = every_run(store)
    own, keys = of_recipe(name, known, store)
    if not own and not keys:
        root = named(name, store)
        if root is None:
            raise InputError(
                "rm takes a recipe that was run, an artifact's name or six digits of its fingerprint",
                name,
                _known_names(name, known, store),
            )
        keys = {(root.parent.name, root.name[-PREFIX:])}
        for recipe in sorted({run.name for run in known if run.keys & keys}):
            typer.echo(f"note: runs of {recipe} refer to it; the next one makes it again")
    else:
        others = [run for run in known if run not in own]
        shared = reachable(store, {key for run in others for key in run.keys}) & keys
        for item in belongings(store, shared, ""):
            names = sorted({run.name for run in others if item.key in run.keys})
            typer.echo(f"kept: {_place(store, item)}: {', '.join(names) or 'what others were made from'} needs it too")
        keys -= shared
    _require_unused(own, keys, users(store, known), store)
    whole = _remove(store, list(belongings(store, keys, f"of {name}")), {}, newcomers, yes)
    if yes and whole:
        for run in own:
            for ending in (".json", ".jsonl", ".lock"):  # the record first: without it the others mean nothing
                run.path.with_suffix(ending).unlink(missing_ok=True)
    if own:
        done = "forgotten" if yes and whole else "kept on record" if yes else "would be forgotten"
        typer.echo(f"{len(own)} run{'s' * (len(own) > 1)} of {name} {done}")


def _remove(store: Store, items: list[Item], used: dict[Key, str], newcomers: NewRuns, yes: bool) -> bool:
    """List the items and, if that is wished, remove them, all but what is in use. Whether that was all of them."""
    from flows.session import words
    from storage.errors import BusyError
    from storage.garbage import remove

    def refuse(holder: str) -> None:
        raise BusyError(holder)

    rows, freed, skipped = [], 0, []
    for item in items:
        try:
            if item.key in used:
                refuse(used[item.key])
            if yes:
                remove(store, item, refuse, newcomers.check_unused)
        except BusyError as busy:
            skipped.append(f"in use: {_place(store, item)}: by {busy}")
            continue
        rows.append((_place(store, item), words.size(item.size), item.why))
        freed += item.size
    if rows:
        print_table(("REMOVED" if yes else "WOULD GO", "SIZE", "WHY"), rows)
    for line in skipped:
        typer.echo(line)
    if not rows:
        typer.echo(f"Nothing to remove in {store.home}")
    elif yes:
        typer.echo(f"{words.size(freed)} freed in {store.home}")
    else:
        typer.echo(f"{words.size(freed)} in {store.home}. Nothing was removed: add --yes")
    return not skipped


def _require_unused(own: list[Run], keys: set[Key], used: dict[Key, str], store: Store) -> None:
    from flows.upkeep.references import is_running
    from storage.errors import BusyError

    busy = [run.process for run in own if is_running(run, store)] + [used[key] for key in sorted(keys & set(used))]
    if busy:
        raise BusyError(f"It is in use by {busy[0]}. Stop that first")


def _known_names(name: str, known: list[Run], store: Store) -> str:
    from flows.upkeep.references import title
    from pipeline.recipe.load import nearest

    return nearest(name, [*(run.name for run in known), *map(title, store.roots())])


def _place(store: Store, item: Item) -> str:
    return item.path.relative_to(store.home).as_posix()
