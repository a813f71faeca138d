"""The curves that the monitor of a training writes, one JSON line for each point."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

METRICS = "metrics.jsonl"


def read_curves(folder: Path) -> list[dict[str, float]]:
    """The whole lines of a monitor's folder, each with its `images`. Raises OSError for a file that cannot be read.

    Torn and damaged lines are left out: nothing forces them to the disk, and a power cut leaves any bytes.
    """
    lines = []
    for text in (folder / METRICS).read_bytes().splitlines(True):
        with suppress(ValueError):
            line = json.loads(text) if text.endswith(b"\n") else None
            if isinstance(line, dict) and isinstance(line.get("images"), int | float):
                lines.append(line)
    return lines
