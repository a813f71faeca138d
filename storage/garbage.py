"""Garbage collection: artifacts that no run needs, their size, and their removal: one rename, then deletion."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.artifact import MANIFEST
from storage.store import DISCARDED, PREFIX, RECIPES, Key, Store, is_store, named_by_key

DAY = 86400.0  # seconds
LEAST_DAYS = 1.0  # that what no lock guards is left alone: a copy or a download may be under way


@dataclass(frozen=True)
class Room:
    """`size` bytes that files take; `touched` is when the newest of them was written, in seconds since 1970."""

    size: int
    touched: float


@dataclass(frozen=True)
class Item:
    """Something to remove. `key` names the lock that guards it; None where nothing can be using it."""

    path: Path
    why: str
    size: int
    key: Key | None


def room(path: Path) -> Room:
    """Disk usage of a directory or file. Files that vanish meanwhile do not count; an empty directory is as old as
    itself."""
    size, touched = 0, 0.0
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names) if path.is_dir() else (path,)
    for file in files:
        try:
            facts = file.lstat()
        except OSError:
            continue
        size, touched = size + facts.st_size, max(touched, facts.st_mtime)
    if not touched:
        with suppress(OSError):
            touched = path.lstat().st_mtime
    return Room(size, touched)


def reachable(store: Store, keys: Collection[Key]) -> set[Key]:
    """These artifacts and all artifacts that they were computed from, by their manifests."""
    seen, ahead = set(), list(keys)
    while ahead:
        key = ahead.pop()
        if key in seen:
            continue
        seen.add(key)
        for root in store.directories(*key):
            try:
                inputs = json.loads((root / MANIFEST).read_bytes())["inputs"]
                ahead += [(role, fingerprint[:PREFIX]) for role, fingerprint in inputs.items()]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # damaged, but a run refers to it
    return seen


def garbage(store: Store, referenced: Collection[Key] | None, days: float) -> Iterator[Item]:
    """Everything that may be deleted: artifacts that no run needs, and files not touched for `days`.

    `referenced` are the artifacts that runs refer to; None if unknown, and then no artifact is deleted. Nothing of a
    home that is no store is: a user's folders may have the same names.
    """
    if not is_store(store.home):
        return
    before = time.time() - days * DAY
    artifacts, works = _by_key(store.roots()), _by_key(store.works())
    needed = set(artifacts) if referenced is None else reachable(store, referenced)
    for key, path in sorted(artifacts.items()):
        taken = room(path)
        if key not in needed and taken.touched <= before:
            del artifacts[key]
            yield Item(path, "no run refers to it", taken.size, key)
    for key, path in sorted(works.items()):
        taken = room(path)
        if taken.touched <= before:
            del works[key]
            why = f"its artifact is there, and it was not touched for {_days(taken)}"
            yield Item(path, why if key in artifacts else f"not touched for {_days(taken)}", taken.size, key)
    for path in named_by_key((store.home / "monitor").glob("*/*/")):
        key, taken = (path.parent.name, path.name[-PREFIX:]), room(path)
        if key not in artifacts and key not in works and taken.touched <= before:
            yield Item(path, "its training is gone", taken.size, key)
    yield from _leftovers(store, min(before, time.time() - LEAST_DAYS * DAY))


def _by_key(paths: Collection[Path]) -> dict[Key, Path]:
    return {(path.parent.name, path.name[-PREFIX:]): path for path in paths}


def belongings(store: Store, keys: Collection[Key], why: str) -> Iterator[Item]:
    """All that lies in the store under these keys: artifacts, work and monitor."""
    for key in sorted(keys):
        for path in (*store.directories(*key), store.work(*key), store.monitor(*key)):
            if path.exists():
                yield Item(path, why, room(path).size, key)


def remove(
    store: Store, item: Item, in_use: Callable[[str], None], last_look: Callable[[Key], None] = lambda key: None
) -> None:
    """Remove an item, under its lock if it has one. `in_use` is called with its holder, and raises.

    `last_look` is called under the lock, and raises where the item has come to be needed since it was chosen: to walk
    a large store takes minutes. Raises OSError for what cannot be removed.
    """
    if item.key is None:
        with suppress(FileNotFoundError):  # another has just removed it
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink()
        return
    with store.lock(*item.key, in_use):
        last_look(item.key)
        if item.path.exists():
            store.discard(item.path)


def _leftovers(store: Store, before: float) -> Iterator[Item]:
    """Leftovers of killed processes, and caches. No lock guards them."""
    names = (f"work/{DISCARDED}*", f"work/{RECIPES}*", "*/.*.partial", "*/*/.*.partial")
    for path in sorted({path for name in names for path in store.home.glob(name)}):
        taken = room(path)
        if path.name.startswith(DISCARDED) or taken.touched <= before:
            yield Item(path, "left over by a process that has ended", taken.size, None)
    for path in sorted((store.home / "cache").glob("[!.]*")):
        taken = room(path)
        if taken.touched <= before:
            yield Item(path, f"a cache, not touched for {_days(taken)}", taken.size, None)


def _days(taken: Room) -> str:
    days = int((time.time() - taken.touched) / DAY)
    return f"{days} day{'' if days == 1 else 's'}"
