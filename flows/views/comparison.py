"""Recipes at several seeds: their runs in the store, and making those that are missing, one after another."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.session.recipes import load
from flows.session.recorded import finished_nodes
from pipeline.engine.rerun import valid_artifact
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.compare import SeedRun, run_of
from storage.artifact import Artifact
from storage.errors import DamageError, FlowctlError, InputError
from storage.store import Store

PROGRAM = (sys.executable, "-m", "flows.cli")


@dataclass(frozen=True)
class Wanted:
    """A recipe at one seed, and how to say so on the command line."""

    recipe: Recipe
    words: tuple[str, ...]  # of `flowctl run`

    @property
    def command(self) -> str:
        return shlex.join(["flowctl", *self.words])

    def __str__(self) -> str:
        return f"{self.recipe.name} at seed {self.recipe.seed}"


def wanted(recipes: Sequence[str], seeds: Sequence[int] = (), overrides: Sequence[str] = ()) -> list[Wanted]:
    """Each recipe, by name or file, at each seed; at its own where no seeds are given. Data and reference have seeds of
    their own, so that all share them.

    Raises InputError for what is no sound recipe, or for one that is named twice.
    """
    found = []
    for name in recipes:
        for own in [[f"seed={seed}"] for seed in seeds] or [[]]:
            changes = [*overrides, *own]
            words = [word for change in changes for word in ("--set", change)]
            found.append(Wanted(load(name, changes), ("run", name, *words)))
    told = [str(item) for item in found]
    twice = list(dict.fromkeys(name for name in told if told.count(name) > 1))
    if twice:
        raise InputError(
            "Each recipe is compared once, and has a name of its own",
            ", ".join(twice),
            "Name it once, or give the recipes different names",
        )
    return found


def find(item: Wanted, store: Store) -> SeedRun | None:
    """What the store has of it; None where its student or evaluation is missing or damaged. Of other stages only the
    seconds are wanted, if they are still there."""
    artifacts: dict[str, Artifact] = {}
    for name, node in finished_nodes(item.recipe, store).items():
        try:
            artifact = valid_artifact(node, store) if name != "report" else None
        except DamageError:
            continue  # to be made anew: `flowctl run` says so
        if artifact is not None:
            artifacts[name] = artifact
    if not {"student", "evaluation"} <= artifacts.keys():
        return None
    return run_of(item.recipe.name, item.recipe.seed, artifacts)


def collect(
    items: Sequence[Wanted], store: Store, make: bool = False, tell: Callable[[str], None] = lambda text: None
) -> list[SeedRun]:
    """The runs of all items, in their order; with `make`, those that are missing are made first.

    Raises InputError with the commands where some are missing and are not to be made; FlowctlError where making one
    fails or is stopped. What was finished stays, and the same call goes on.
    """
    runs = [find(item, store) for item in items]
    missing = [item for item, run in zip(items, runs, strict=True) if run is None]
    if not missing:
        return runs
    if not make:
        raise InputError(
            "compare takes recipes that have been run",
            "without results: " + ", ".join(map(str, missing)),
            "Add --run, or: " + "; ".join(item.command for item in missing),
        )
    for number, item in enumerate(missing, 1):
        tell(f"[{number} of {len(missing)}] {item.command}")
        code = _waited([*PROGRAM, *item.words])
        if code:
            raise FlowctlError(
                f"`{item.command}` ended with exit code {code}. What is finished is kept: run the same command again"
            )
    return collect(items, store)


def _waited(command: Sequence[str]) -> int:
    """The exit code of a child, which has a process to itself: Prefect can be set up only once in each.

    Ctrl-C reaches it without us, for it belongs to the same terminal, and SIGTERM is passed on; while it saves, we
    wait. What it prints goes to stderr, which leaves stdout to the comparison.
    """
    child: subprocess.Popen | None = None

    def pass_on(number: int, frame: object) -> None:
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command, stdout=2)
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
