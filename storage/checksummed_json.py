"""JSON that vouches for itself: a flipped digit is still valid JSON, and would be believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.atomic import write_json

CHECKSUM = "checksum"


def with_checksum(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same, of plain data, with a checksum."""
    return {**facts, CHECKSUM: _checksum(facts)}


def is_intact(facts: Any) -> bool:
    """Whether what was read back has its checksum. Records that were once written without one hold not."""
    if not isinstance(facts, dict) or CHECKSUM not in facts:
        return False
    return facts[CHECKSUM] == _checksum({key: value for key, value in facts.items() if key != CHECKSUM})


def write_checksummed(path: Path, facts: Mapping[str, Any]) -> None:
    """Publish `facts` as `path`, with their checksum."""
    write_json(path, with_checksum(facts))


def read_checksummed(path: Path) -> dict[str, Any] | None:
    """What was written so; None if the file is missing, cannot be read or is not as it was written."""
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return {key: value for key, value in facts.items() if key != CHECKSUM} if is_intact(facts) else None


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
