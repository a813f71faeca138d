"""`list`: the recipes, the artifacts of the store or the remote, and the disk space they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import print_table

if TYPE_CHECKING:
    from storage.store import Store


def list_(
    remote: Annotated[bool, typer.Option("--remote", help="List the artifacts at $FLOWCTL_REMOTE instead.")] = False,
) -> None:
    """List the shipped recipes, the artifacts and unfinished work in the store, and their sizes."""
    if remote:
        _list_remote()
        return
    from flows.session import words
    from pipeline.recipe.load import load, shipped
    from storage.garbage import room
    from storage.store import Store

    print_table(("RECIPE", "DESCRIPTION"), [(name, load(name).description) for name in shipped()])
    store = Store()
    artifacts, work = _artifacts(store), _work(store)
    typer.echo()
    if artifacts:
        print_table(
            ("ARTIFACT", "SIZE", "CREATED", "TIME"),
            [(name, words.size(size), *rest) for name, size, *rest in artifacts],
        )
    else:
        typer.echo(f"No artifacts yet in {store.home}")
    if work:
        typer.echo()
        print_table(
            ("UNFINISHED WORK", "SIZE", "STATE"), [(name, words.size(size), state) for name, size, state in work]
        )
    if artifacts or work:
        sizes = [sum(row[1] for row in rows) for rows in (artifacts, work)]
        total = room(store.home).size
        typer.echo(
            f"\n{words.size(sizes[0])} in {len(artifacts)} artifacts, {words.size(sizes[1])} in unfinished work, "
            f"{words.size(total - sum(sizes))} in records, monitors and caches: {words.size(total)} in {store.home}"
        )


def _list_remote() -> None:
    from flows.session import words
    from flows.upkeep.remote import named, title
    from storage.errors import DamageError

    place, rows, total = named(), [], 0
    for stage, fingerprint in place.keys():  # noqa: SIM118 - not a dict
        try:
            artifact = place.find(stage, fingerprint)
        except DamageError as damage:
            rows.append((title(stage, fingerprint), "", "", f"damaged: {damage.what}: {damage.flaw}"))
            continue
        if artifact is None:
            rows.append((title(stage, fingerprint), "", "", "incomplete: its upload is running or was stopped"))
            continue
        size = sum(record.size for record in artifact.files)
        created, name = artifact.provenance.minute, title(stage, fingerprint, artifact.name)
        rows.append((name, words.size(size), created, place.address(artifact)))
        total += size
    if rows:
        print_table(("ARTIFACT", "SIZE", "CREATED", "AT"), rows)
        typer.echo(f"\n{words.size(total)} in {place.url}")
    else:
        typer.echo(f"No artifacts yet in {place.url}")


def _artifacts(store: Store) -> list[tuple[str, int, str, str]]:
    """Name, bytes, time of creation, and the seconds it took or why it cannot be used."""
    from flows.session import words
    from flows.upkeep.references import title
    from storage.artifact import Artifact
    from storage.errors import DamageError
    from storage.garbage import room

    rows = []
    for root in store.roots():
        try:
            facts = Artifact.read(root).provenance
            rest = facts.minute, words.duration(facts.wall_seconds)
        except DamageError as damage:
            rest = "", f"damaged: {damage.what}: {damage.flaw}"
        rows.append((title(root), room(root).size, *rest))
    return rows


def _work(store: Store) -> list[tuple[str, int, str]]:
    """Name, bytes and progress of each work directory."""
    from flows.upkeep.references import title
    from flows.upkeep.status import unfinished
    from storage.garbage import room

    by_key = {(item["stage"], item["fingerprint"]): item for item in reversed(unfinished(store))}
    rows = []
    for work in store.works():
        item = by_key.get((work.parent.name, work.name))
        state = "nothing saved: `flowctl gc` deletes it in time"
        if item is not None:
            saved, state = item["saved"], item["state"]
            if saved is not None:
                state += f", {saved['done']:,} of {saved['total']:,} {saved['unit']} saved"
        rows.append((title(work), room(work).size, state))
    return rows
