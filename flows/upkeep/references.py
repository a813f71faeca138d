"""Which runs are kept, what they refer to, and what is in use: from run records and locks alone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.session.recipes import given, load
from flows.session.runs import alive, locked
from pipeline.engine.dag import build
from pipeline.recipe.load import shipped
from pipeline.recipe.recipe import Recipe
from storage.errors import BusyError, FlowctlError, InputError
from storage.garbage import reachable
from storage.locks import held
from storage.store import PREFIX, Key, Store


@dataclass(frozen=True)
class Run:
    """A run record: the recipe's name, and the keys of the artifacts that its plan refers to."""

    path: Path
    name: str
    keys: frozenset[Key]
    facts: dict[str, Any]

    @property
    def process(self) -> str:
        return f"process {self.facts['pid']} on {self.facts['host']}, which runs {self.name}"


def runs(store: Store) -> tuple[list[Run], list[Path]]:
    """All runs on record, oldest first, and records that cannot be read."""
    found, torn = [], []
    for path in sorted((store.home / "runs").glob("run-*.json")):
        try:
            facts = json.loads(path.read_bytes())
            keys = frozenset((step["stage"], step["fingerprint"][:PREFIX]) for step in facts["plan"])
            found.append(Run(path, str(facts["name"]), keys, facts))
        except (OSError, ValueError, KeyError, TypeError):
            torn.append(path)
    return found, torn


def every_run(store: Store) -> list[Run]:
    """All runs on record, for one who removes what none of them needs. Raises FlowctlError if one cannot be read."""
    found, torn = runs(store)
    if torn:
        raise FlowctlError(
            f"The record {torn[0]} cannot be read, so that it is not known which artifacts its run "
            "needs. Remove it if that run is of no interest"
        )
    return found


def of_recipe(name: str, known: list[Run], store: Store) -> tuple[list[Run], set[Key]]:
    """The runs of a recipe, and the keys of all that they and the recipe as it is now refer to."""
    keys: set[Key] = set()
    if given(name):
        recipe = load(name)
        name = recipe.name
        with suppress(InputError):  # its images are no longer there: what its runs have recorded remains
            keys = {(node.name, node.fingerprint[:PREFIX]) for node in build(recipe, store.home / "cache").values()}
    own = [run for run in known if run.name == name]
    return own, keys.union(*(run.keys for run in own))


def users(store: Store, known: list[Run]) -> dict[Key, str]:
    """By key, who uses it now: a run that is going on, or whoever holds its lock."""
    used = {key: run.process for run in known if going_on(run, store) for key in run.keys}
    for path in sorted((store.home / "locks").glob("*.lock")):
        if held(path):
            used.setdefault((path.stem[: -PREFIX - 1], path.stem[-PREFIX:]), store.holder(path))
    return used


def going_on(run: Run, store: Store) -> bool:
    """Whether a run's process still works.

    Its record's lock tells of that, on any machine. A record without one, of an older version: the locks of its stages
    tell of processes on any machine, and of those on this one it is also known whether they live.
    """
    if run.facts.get("ended") is not None:
        return False
    known = locked(run.path)
    if known is not None:
        return known
    here = run.facts.get("host") == socket.gethostname()
    return (here and alive(run.facts, store.home)) or any(held(store.lock_path(*key)) for key in run.keys)


def named(name: str, store: Store) -> Path | None:
    """The artifact that a user calls so: by stage and name, or six digits of its fingerprint; sound or damaged.

    Raises InputError where there are several.
    """
    hits = [
        root
        for root in store.roots()
        if name.rstrip("/") in (title(root), root.name, str(root))
        or (len(name) >= 6 and root.name[-PREFIX:].startswith(name[:PREFIX]))
    ]
    if len(hits) > 1:
        raise InputError("A name must mean one artifact", name, f"It could be {', '.join(map(title, hits))}")
    return hits[0] if hits else None


def title(root: Path) -> str:
    """stage/name, as `list` prints it."""
    return f"{root.parent.name}/{root.name}"


def recipes(store: Store) -> Iterator[Recipe]:
    """Recipes that may have made what is in the store: those of recorded runs, the latest first, then the shipped."""
    known = []
    for path in sorted((store.home / "runs").glob("run-*.json"), reverse=True):
        try:
            recipe = Recipe.model_validate(json.loads(path.read_bytes())["recipe"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            continue  # torn, or of another version of the program
        if recipe not in known:
            known.append(recipe)
            yield recipe
    for name in shipped():
        try:
            yield load(name)
        except InputError:
            continue


class Newcomers:
    """The runs that have come on record since this was made."""

    def __init__(self, store: Store) -> None:
        self._store, self._seen = store, _records(store)
        self._needed: dict[Key, str] = {}  # by whom
        self._unread: str | None = None

    def refuse(self, key: Key) -> None:
        """Raise BusyError if one of them needs this. To be called under the lock of `key`, right before it is removed.

        A run goes on record before it takes the lock of its first stage, and looks for each stage's artifact under
        that stage's lock. So either its record is seen here, or it finds the artifact gone and makes it anew.
        """
        came = _records(self._store) - self._seen
        if came:
            self._read(came)
        if self._unread or key in self._needed:
            raise BusyError(self._needed.get(key) or self._unread)

    def _read(self, came: set[str]) -> None:
        self._seen |= came
        sound, torn = runs(self._store)
        for run in sound:
            if run.path.name in came:
                self._needed |= dict.fromkeys(reachable(self._store, run.keys), run.process)
        for path in torn:
            if path.name in came:  # it may need anything
                self._unread = f"a run, perhaps: its record {path} cannot be read"


def _records(store: Store) -> set[str]:
    """The names of all run records: to look at those is cheap enough to do so for each thing that is removed."""
    try:
        names = os.listdir(store.home / "runs")
    except FileNotFoundError:
        return set()
    return {name for name in names if name.startswith("run-") and name.endswith(".json")}
