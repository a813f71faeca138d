"""Run records: which artifacts they refer to, and which artifacts are in use; from records and locks alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.session.recipes import given, load
from flows.session.runs import keys_of, locked, read_all, records
from pipeline.engine.dag import build
from pipeline.recipe.load import nearest, shipped
from pipeline.recipe.recipe import Recipe
from storage.artifact import Artifact
from storage.errors import BusyError, FlowctlError, InputError, MissingError
from storage.garbage import reachable
from storage.locks import held
from storage.store import PREFIX, Key, Store


class UnreadableRecord(FlowctlError):
    """A run record cannot be read, so the artifacts that it needs are unknown."""


@dataclass(frozen=True)
class Run:
    """A run record: the recipe's name, and the keys of the artifacts in its plan."""

    path: Path
    name: str
    keys: frozenset[Key]
    facts: dict[str, Any]

    @property
    def seed(self) -> int | None:
        """None where another version of the program left it out."""
        recipe = self.facts.get("recipe")
        return recipe.get("seed") if isinstance(recipe, dict) else None

    @property
    def process(self) -> str:
        return f"process {self.facts['pid']} on {self.facts['host']}, which runs {self.name}"


def runs(store: Store) -> tuple[list[Run], list[Path]]:
    """All run records, and the paths of unreadable ones."""
    records, torn = read_all(store.home)
    readable = []
    for facts in records:
        path = store.home / "runs" / f"{facts['id']}.json"
        try:
            readable.append(Run(path, str(facts["name"]), frozenset(keys_of(facts)), facts))
        except (KeyError, TypeError):
            torn.append(path)
    return readable, torn


def every_run(store: Store) -> list[Run]:
    """All run records, for commands that delete what none of them needs. Raises UnreadableRecord."""
    readable, torn = runs(store)
    if torn:
        raise UnreadableRecord(
            f"The record {torn[0]} cannot be read, so the artifacts that its run needs are unknown. "
            "Delete the record if you do not need that run"
        )
    return readable


def of_recipe(name: str, all_runs: list[Run], store: Store) -> tuple[list[Run], set[Key]]:
    """The runs of a recipe, and the keys of all artifacts of these runs and of the recipe as it is now."""
    keys: set[Key] = set()
    if given(name):
        recipe = load(name)
        name = recipe.name
        with suppress(InputError):  # its images no longer exist: the records of its runs remain
            keys = {(node.name, node.fingerprint[:PREFIX]) for node in build(recipe, store.home / "cache").values()}
    own = [run for run in all_runs if name in (run.name, f"{run.name}@{run.seed}")]
    return own, keys.union(*(run.keys for run in own))


def users(store: Store, all_runs: list[Run]) -> dict[Key, str]:
    """By key, the user of an artifact: a running run, or the holder of its lock."""
    used = {key: run.process for run in all_runs if is_running(run) for key in run.keys}
    for path in sorted((store.home / "locks").glob("*.lock")):
        if held(path):
            used.setdefault((path.stem[: -PREFIX - 1], path.stem[-PREFIX:]), store.holder(path))
    return used


def is_running(run: Run) -> bool:
    """Whether a run's process is alive, on any machine."""
    return run.facts.get("ended") is None and locked(run.path)


def named(name: str, store: Store, need: str, others: Iterable[str]) -> Path:
    """The artifact of this name: stage and name, or six digits of its fingerprint; valid or damaged.

    Raises MissingError if there are several, and if there is none, with the nearest name of an artifact or of `others`:
    what else the caller takes, as the error's `need` says.
    """
    hits = [
        root
        for root in store.roots()
        if name.rstrip("/") in (title(root), root.name, str(root))
        or (len(name) >= 6 and root.name[-PREFIX:].startswith(name[:PREFIX]) and _fingerprint(root).startswith(name))
    ]
    if len(hits) > 1:
        raise MissingError("A name must match one artifact", name, f"It could be {', '.join(map(title, hits))}")
    if not hits:
        raise MissingError(need, name, nearest(name, [*others, *map(title, store.roots())]))
    return hits[0]


def _fingerprint(root: Path) -> str:
    """The fingerprint of an artifact, or what its name has of it where its manifest cannot be read."""
    try:
        return Artifact.read(root).fingerprint
    except FlowctlError:
        return root.name[-PREFIX:]


def title(root: Path) -> str:
    """stage/name, as `list` prints it."""
    return f"{root.parent.name}/{root.name}"


def recipes(store: Store) -> Iterator[Recipe]:
    """Recipes that may have produced the artifacts: those of recorded runs, latest first, then the shipped ones."""
    seen = []
    for facts in reversed(list(records(store.home))):
        try:
            recipe = Recipe.model_validate(facts["recipe"])
        except (KeyError, ValidationError):
            continue  # of another version of the program
        if recipe not in seen:
            seen.append(recipe)
            yield recipe
    for name in shipped():
        try:
            yield load(name)
        except InputError:
            continue


class NewRuns:
    """The runs that were recorded since this object was created."""

    def __init__(self, store: Store) -> None:
        self._store, self._seen = store, _records(store)
        self._needed: dict[Key, str] = {}  # by whom
        self._unread: str | None = None

    def check_unused(self, key: Key) -> None:
        """Raise BusyError if one of them needs this artifact. Call under the lock of `key`, right before the removal.

        A run is recorded before it takes the lock of its first stage, and looks for each stage's artifact under that
        stage's lock. So either this method sees its record, or the run sees that the artifact is gone.
        """
        new = _records(self._store) - self._seen
        if new:
            self._read(new)
        if self._unread or key in self._needed:
            raise BusyError(self._needed.get(key) or self._unread)

    def _read(self, new: set[str]) -> None:
        self._seen |= new
        readable, torn = runs(self._store)
        for run in readable:
            if run.path.name in new:
                self._needed |= dict.fromkeys(reachable(self._store, run.keys), run.process)
        for path in torn:
            if path.name in new:  # it may need any artifact
                self._unread = f"a run, perhaps: its record {path} cannot be read"


def _records(store: Store) -> set[str]:
    """The names of all run records; cheap enough to list before each removal."""
    try:
        names = os.listdir(store.home / "runs")
    except FileNotFoundError:
        return set()
    return {name for name in names if name.startswith("run-") and name.endswith(".json")}
