"""`verify`: read every byte in the store, name what is damaged, and make it sound again."""

from __future__ import annotations

import sys
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
            metavar="[RECIPE|ARTIFACT]", help="Only what this recipe and all runs of its name use, or this artifact."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Make what is damaged anew: of a bank the bad shards alone, anything else by its stage."
        ),
    ] = False,
    remote: Annotated[
        bool,
        typer.Option(
            "--remote",
            help="The artifacts at $FLOWCTL_REMOTE instead; --repair sends "
            "them again from the store, or takes them out.",
        ),
    ] = False,
) -> None:
    """Check every file of every artifact, and what unfinished stages have saved. Exit code 1 if damage is left."""
    if remote:
        _verify_remote(name, repair)
        return
    from flows.session.display import display
    from flows.upkeep.references import recipes, runs, users
    from flows.upkeep.repair import Repairs
    from storage.errors import FlowctlError
    from storage.inspection import inspect_work
    from storage.locks import held
    from storage.store import Store

    store = Store()
    recipe, roots, works = _targets(name, store)
    repairs = Repairs(store, [], {}, display())
    found = [repairs.inspect(root) for root in _watched(roots)]
    saved = [inspect_work(work) for work in works if not held(store.lock_path(work.parent.name, work.name))]
    damaged = [finding for finding in (*saved, *found) if finding.flaws]
    for finding in damaged:
        for path, flaw in finding.flaws.items():
            typer.echo(f"damaged: {finding.root}: {path}: {flaw}")
    if not damaged:
        files = sum(len(finding.artifact.files) for finding in found)
        typer.echo(
            f"{len(found)} artifacts, {files} files: every digest holds."
            + f" What {len(saved)} unfinished stages have saved holds too." * bool(saved)
        )
        return
    what = f"{len(damaged)} of {len(found) + len(saved)} artifacts" + " and work directories" * bool(saved)
    if not repair:
        raise FlowctlError(f"{what} damaged. `flowctl verify --repair` makes sound what it can")
    repairs.recipes = [*([recipe] if recipe else []), *recipes(store)]
    repairs.used = users(store, runs(store)[0])
    left = [finding for finding in damaged if not _mended(finding, repairs, in_work=finding in saved)]
    if left:
        raise FlowctlError(f"{len(left)} of {what} still damaged")


def _verify_remote(name: str | None, repair: bool) -> None:
    """The same of what lies on the remote: read over the network, byte by byte."""
    from flows.upkeep.remote import damaged, named, restore, selected
    from storage.errors import FlowctlError
    from storage.store import Store

    place = named()
    keys = selected(place, name)
    found = [item for item in (damaged(place, *key) for key in keys) if item is not None]
    for item in found:
        for where, flaw in item.flaws.items():
            typer.echo(f"damaged: {where}: {flaw}")
    if not found:
        typer.echo(f"{len(keys)} artifacts in {place.url}: every digest holds.")
    elif not repair:
        raise FlowctlError(
            f"{len(found)} of {len(keys)} artifacts damaged. `flowctl verify --remote --repair` sends "
            "them again from this store, or takes them out"
        )
    else:
        for item in found:
            typer.echo(f"repaired: {restore(place, item, Store())}")


def _mended(finding: Finding, repairs: Repairs, in_work: bool) -> bool:
    """Repair one, and say what came of it."""
    from flows.upkeep.references import title
    from storage.errors import FlowctlError, Interrupted

    name = title(finding.root)
    if not in_work and not repairs.inspected[finding.key].flaws:
        return True  # before something that is made from it
    try:
        typer.echo(f"repaired: {name}: {repairs.repair_work(finding) if in_work else repairs.repair(finding)}")
    except Interrupted:
        raise
    except FlowctlError as error:
        typer.echo(f"left: {name}: {error}")
        return False
    return True


def _targets(name: str | None, store: Store) -> tuple[Recipe | None, list[Path], list[Path]]:
    """The recipe if one is named, and the directories of artifacts and of unfinished work to look at."""
    from flows.session.recipes import given
    from flows.upkeep.references import named, of_recipe, runs, title
    from pipeline.recipe.load import load, nearest, shipped
    from storage.errors import InputError

    if name is None:
        return None, store.roots(), store.works()
    known = runs(store)[0]
    own, keys = of_recipe(name, known, store)
    if own or given(name):
        roots = [root for key in sorted(keys) for root in store.directories(*key)]
        works = [work for key in sorted(keys) if (work := store.work(*key)).is_dir()]
        if not roots and not works:
            raise InputError(
                "verify takes a recipe of which something is made",
                name,
                f"Nothing of it is in {store.home}: `flowctl run {name}` makes it",
            )
        return load(name) if given(name) else None, roots, works
    root = named(name, store)
    if root is None:
        raise InputError(
            "verify takes a recipe, an artifact's name or six digits of its fingerprint",
            name,
            nearest(name, [*shipped(), *(run.name for run in known), *map(title, store.roots())]),
        )
    return None, [root], []


def _watched(roots: list[Path]) -> list[Path]:
    """The same, with a bar for whoever watches."""
    from rich.console import Console
    from rich.progress import track

    return track(roots, "verifying", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
