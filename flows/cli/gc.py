"""`gc`: delete what no run refers to. Without --yes it only lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import print_table

if TYPE_CHECKING:
    from flows.upkeep.references import NewRuns
    from storage.garbage import Item
    from storage.store import Key, Store

Yes = Annotated[bool, typer.Option("--yes", help="Delete. Without it the command only lists candidates.")]


def gc(
    yes: Yes = False,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what changed in the last DAYS days.")
    ] = 30.0,
) -> None:
    """Delete artifacts that no run refers to, abandoned work and temporary files."""
    from flows.upkeep.references import NewRuns, every_run, users
    from storage.errors import FlowctlError
    from storage.garbage import garbage
    from storage.store import Store

    store, runs, needed = Store(), [], None
    newcomers = NewRuns(store)
    try:
        runs = every_run(store)
        needed = {key for run in runs for key in run.keys}
    except FlowctlError as error:
        typer.echo(f"note: {str(error).rstrip('.')}. Until then no artifact is deleted.")
    delete(store, list(garbage(store, needed, older_than)), users(store, runs), newcomers, yes)


def delete(store: Store, items: list[Item], used: dict[Key, str], newcomers: NewRuns, yes: bool) -> bool:
    """List the items and, with `yes`, delete those that no process uses. Returns whether none was in use.

    Exits with code 1 if one cannot be deleted.
    """
    from flows.session import words
    from storage.errors import BusyError
    from storage.garbage import remove

    def refuse(holder: str) -> None:
        raise BusyError(holder)

    rows, freed, skipped, failed = [], 0, [], False
    for item in items:
        try:
            if item.key in used:
                refuse(used[item.key])
            if yes:
                remove(store, item, refuse, newcomers.check_unused)
        except BusyError as busy:
            skipped.append(f"in use: {place(store, item)}: by {busy}")
            continue
        except OSError as error:
            failed = True
            skipped.append(f"not deleted: {place(store, item)}: {error.strerror}")
            continue
        rows.append((place(store, item), words.size(item.size), item.why))
        freed += item.size
    if rows:
        print_table(("DELETED" if yes else "WOULD DELETE", "SIZE", "WHY"), rows)
    for line in skipped:
        typer.echo(line)
    if not rows:
        typer.echo(f"Nothing {'was deleted' if failed else 'to delete'} in {store.home}")
    elif yes:
        typer.echo(f"{words.size(freed)} freed in {store.home}")
    else:
        typer.echo(f"{words.size(freed)} in {store.home}. Nothing was deleted: add --yes")
    if failed:
        raise typer.Exit(1)
    return not skipped


def place(store: Store, item: Item) -> str:
    return item.path.relative_to(store.home).as_posix()
