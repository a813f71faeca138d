"""Measured rates of a store: how fast this device did a kind of work. Plans read them, finished stages write them.

    <home>/rates/<digest of the key>.json      {key, per_second, checksum}

A key names everything that the speed depends on: device, threads, processes, network, batch, precision. A rate counts
for its exact key only; the latest measurement replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage.checksummed_json import json_digest, read_checksummed, write_checksummed

Key = Mapping[str, Any]


class Rates:
    """The measured rates of the store at `home`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "rates"

    def get(self, key: Key) -> float | None:
        """Units of work in a second, of exactly this key; None if none was measured, or if its file is damaged."""
        try:
            facts = read_checksummed(self._path(key))
            if facts is None or facts.get("key") != dict(key):
                return None
            rate = float(facts["per_second"])
        except (OSError, KeyError, TypeError, ValueError):
            return None
        return rate if rate > 0 else None

    def put(self, key: Key, amount: float, seconds: float) -> None:
        """Store that `amount` units of work took `seconds`. A full disk stores nothing: no result depends on it."""
        if amount <= 0 or seconds <= 0:
            return
        facts = {"key": dict(key), "per_second": amount / seconds}
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checksummed(self._path(key), facts)

    def _path(self, key: Key) -> Path:
        return self.folder / f"{json_digest(dict(key))[:24]}.json"
