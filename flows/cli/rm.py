"""`rm`: delete a recipe's artifacts and run records, or one artifact. Without --yes it only lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.gc import Yes, delete, place

if TYPE_CHECKING:
    from flows.upkeep.references import Run
    from storage.store import Key


def rm(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE|ARTIFACT", help="A recipe's name, or STAGE/NAME of one artifact.")
    ],
    yes: Yes = False,
) -> None:
    """Delete the run records of a recipe and its artifacts that no other run refers to; or one artifact."""
    from flows.upkeep.references import NewRuns, every_run, named, of_recipe, users
    from storage.garbage import belongings, reachable
    from storage.store import PREFIX, Store

    store = Store()
    newcomers = NewRuns(store)
    runs = every_run(store)
    own, keys = of_recipe(name, runs, store)
    if not own and not keys:
        need = "rm needs a recipe that has runs, the name of an artifact or six digits of its fingerprint"
        root = named(name, store, need, [run.name for run in runs])
        keys = {(root.parent.name, root.name[-PREFIX:])}
        for recipe in sorted({run.name for run in runs if run.keys & keys}):
            typer.echo(f"note: runs of {recipe} refer to it; their next run creates it again")
    else:
        others = [run for run in runs if run not in own]
        shared = reachable(store, {key for run in others for key in run.keys}) & keys
        for item in belongings(store, shared, ""):
            names = sorted({run.name for run in others if item.key in run.keys})
            typer.echo(f"not deleted: {place(store, item)}: needed by {', '.join(names) or 'inputs of other runs'}")
        keys -= shared
    _require_unused(own, keys, users(store, runs))
    complete = delete(store, list(belongings(store, keys, f"of {name}")), {}, newcomers, yes)
    if yes and complete:
        for run in own:
            for ending in (".json", ".jsonl", ".lock"):  # the record first: without it the others mean nothing
                run.path.with_suffix(ending).unlink(missing_ok=True)
    if own:
        outcome = "deleted" if yes and complete else "not deleted" if yes else "would be deleted"
        typer.echo(f"{len(own)} run record{'s' * (len(own) > 1)} of {name} {outcome}")
    if yes and not complete:
        raise typer.Exit(1)


def _require_unused(own: list[Run], keys: set[Key], used: dict[Key, str]) -> None:
    from flows.upkeep.references import is_running
    from storage.errors import BusyError

    busy = [run.process for run in own if is_running(run)] + [used[key] for key in sorted(keys & set(used))]
    if busy:
        raise BusyError(f"It is in use by {busy[0]}. Stop that process first.")
