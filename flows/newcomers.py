"""Runs that begin while somebody removes things: what they need stays, though it was chosen before they came."""

from __future__ import annotations

import os

from flows.keeping import Busy, runs
from storage.garbage import reachable
from storage.store import Key, Store


class Newcomers:
    """The runs that have come on record since this was made."""

    def __init__(self, store: Store) -> None:
        self._store, self._seen = store, _records(store)
        self._needed: dict[Key, str] = {}  # by whom
        self._unread: str | None = None

    def refuse(self, key: Key) -> None:
        """Raise Busy if one of them needs this. To be called under the lock of `key`, right before it is removed.

        A run goes on record before it takes the lock of its first stage, and looks for each stage's artifact under
        that stage's lock. So either its record is seen here, or it finds the artifact gone and makes it anew.
        """
        came = _records(self._store) - self._seen
        if came:
            self._read(came)
        if self._unread or key in self._needed:
            raise Busy(self._needed.get(key) or self._unread)

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
