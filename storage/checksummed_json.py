"""JSON files with a checksum of their content, since a flipped digit is still valid JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage.atomic import ABSENT, write_json

CHECKSUM = "checksum"


def json_digest(value: Any) -> str:
    """Hex SHA-256 of plain data as canonical JSON: keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def with_checksum(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with their checksum."""
    return {**facts, CHECKSUM: json_digest(facts)}


def is_intact(facts: Any) -> bool:
    """Whether facts that were read back have their checksum."""
    if not isinstance(facts, dict) or CHECKSUM not in facts:
        return False
    return facts[CHECKSUM] == json_digest({key: value for key, value in facts.items() if key != CHECKSUM})


def write_checksummed(path: Path, facts: Mapping[str, Any]) -> None:
    """Publish `facts` as `path`, with their checksum."""
    write_json(path, with_checksum(facts))


def read_checksummed(path: Path) -> dict[str, Any] | None:
    """The facts without their checksum; None if the file is missing or not as it was written.

    Raises OSError where it cannot be read for another reason.
    """
    try:
        facts = json.loads(path.read_bytes())
    except (*ABSENT, ValueError, RecursionError):
        return None
    return {key: value for key, value in facts.items() if key != CHECKSUM} if is_intact(facts) else None


def cached(path: Path, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The facts at `path`, else `compute()`, written there for the next time.

    Nothing is written where the folder does not exist, since a plan creates no store, or where it can only be read.
    """
    with suppress(OSError):
        if (facts := read_checksummed(path)) is not None:
            return facts
    computed = compute()
    if path.parent.is_dir():
        with suppress(OSError):
            write_checksummed(path, computed)
    return computed
