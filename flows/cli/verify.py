"""`verify`: read every byte in the store, list damaged files, and repair them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.upkeep.repair import Repairs
    from pipeline.recipe.recipe import Recipe
    from storage.inspection import Finding
    from storage.store import Store


def verify(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|ARTIFACT]", help="Check only this artifact, or those of this recipe and its runs."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Rebuild damaged results: only the bad shards of a bank, else the whole result."),
    ] = False,
    remote: Annotated[
        bool,
        typer.Option(
            "--remote",
            help="Check the artifacts at $FLOWCTL_REMOTE instead; --repair uploads them again, or deletes them.",
        ),
    ] = False,
) -> None:
    """Check every file of every artifact and all saved progress. The exit code is 1 if damage remains."""
    if remote:
        _verify_remote(name, repair)
        return
    from flows.session.display import display
    from flows.upkeep.references import recipes, runs
    from flows.upkeep.repair import Repairs
    from storage.errors import FlowctlError
    from storage.store import Store

    store = Store()
    recipe, roots, works = _targets(name, store)
    repairs = Repairs(store, [], display())
    artifacts = [found for root in _with_progress(roots) if (found := repairs.inspect(root)) is not None]
    saved = [found for work in works if (found := _saved(work, store)) is not None]
    damaged = [finding for finding in (*saved, *artifacts) if finding.flaws]
    for finding in damaged:
        for path, flaw in finding.flaws.items():
            typer.echo(f"damaged: {finding.root}: {path}: {flaw}")
    records = runs(store)[1] if name is None else []
    for record in records:
        typer.echo(f"damaged: {record}: cannot be read; delete it if you do not need that run")
    if not damaged and not records:
        files = sum(len(finding.artifact.files) for finding in artifacts if finding.artifact)
        typer.echo(
            f"{len(artifacts)} artifacts, {files} files: all digests match."
            + f" The saved progress of {len(saved)} unfinished stages is intact." * bool(saved)
        )
        return
    what = f"{len(damaged)} of {len(artifacts) + len(saved)} artifacts" + " and work directories" * bool(saved)
    if damaged and not repair:
        raise FlowctlError(f"{what} damaged. Run: flowctl verify --repair")
    repairs.recipes = [*([recipe] if recipe else []), *recipes(store)]
    left = [finding for finding in damaged if not _repaired(finding, repairs, in_work=finding in saved)]
    if left:
        raise FlowctlError(f"{len(left)} of {what} still damaged: the lines above say why")
    if records:
        raise FlowctlError(f"{len(records)} run record{'s' * (len(records) > 1)} damaged. Delete what is named above")


def _saved(work: Path, store: Store) -> Finding | None:
    """What is found in a stage's saved work; None where a process is at work, or was meanwhile."""
    from storage.inspection import inspect_work, unchanged
    from storage.locks import held

    lock = store.lock_path(work.parent.name, work.name)
    if held(lock):
        return None
    finding = unchanged(work, inspect_work)
    return None if held(lock) else finding


def _verify_remote(name: str | None, repair: bool) -> None:
    """Check the artifacts of the remote, byte by byte over the network."""
    from flows.upkeep.remote import damaged, named, restore, selected
    from storage.artifact import NewerFormat
    from storage.errors import FlowctlError
    from storage.store import Store

    place = named()
    keys = selected(place, name)
    items, newer = [], []
    for key in keys:
        try:
            if (item := damaged(place, *key)) is not None:
                items.append(item)
        except NewerFormat as error:
            newer.append(error)
    for item in items:
        for where, flaw in item.flaws.items():
            typer.echo(f"damaged: {where}: {flaw}")
    if items and not repair:
        raise FlowctlError(f"{len(items)} of {len(keys)} artifacts damaged. Run: flowctl verify --remote --repair")
    for item in items:
        typer.echo(f"repaired: {restore(place, item, Store())}")
    if newer:
        raise newer[0]
    if not items:
        typer.echo(f"{len(keys)} artifacts in {place.url}: all digests match.")


def _repaired(finding: Finding, repairs: Repairs, in_work: bool) -> bool:
    """Repair one artifact or work directory, and print the outcome."""
    from flows.upkeep.references import title
    from storage.errors import FlowctlError, Interrupted

    name = title(finding.root)
    if not in_work and not repairs.inspected[finding.key].flaws:
        return True  # repaired already, as the input of another artifact
    try:
        typer.echo(f"repaired: {name}: {repairs.repair_work(finding) if in_work else repairs.repair(finding)}")
    except Interrupted:
        raise
    except (FlowctlError, OSError) as error:
        typer.echo(" ".join([f"not repaired: {name}: {error}", *getattr(error, "__notes__", ())]))
        return False
    return True


def _targets(name: str | None, store: Store) -> tuple[Recipe | None, list[Path], list[Path]]:
    """The recipe if `name` is one, and the directories of artifacts and of unfinished work to check."""
    from flows.session.recipes import given, load
    from flows.upkeep.references import named, of_recipe, runs
    from pipeline.recipe.load import shipped
    from storage.errors import MissingError

    if name is None:
        return None, store.roots(), store.works()
    records = runs(store)[0]
    own, keys = of_recipe(name, records, store)
    if own or given(name):
        roots = [root for key in sorted(keys) for root in store.directories(*key)]
        works = [work for key in sorted(keys) if (work := store.work(*key)).is_dir()]
        if not roots and not works:
            raise MissingError(
                f"verify needs a recipe that has results in {store.home}", name, f"Run: flowctl run {name}."
            )
        return load(name) if given(name) else None, roots, works
    need = "verify needs a recipe, the name of an artifact or six digits of its fingerprint"
    return None, [named(name, store, need, [*shipped(), *(run.name for run in records)])], []


def _with_progress(roots: list[Path]) -> Iterable[Path]:
    """The same, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(roots, "verifying", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
