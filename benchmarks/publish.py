"""The two files of a benchmark's figures, and the command that they name."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def command_line(module: str, words: Sequence[str] | None = None) -> str:
    """The command line of a benchmark, with these words, those of this process unless given."""
    return " ".join([f"python -m benchmarks.{module}", *(sys.argv[1:] if words is None else words)])


def publish(folder: Path, name: str, figures: Mapping[str, Any], page: str) -> None:
    """Write the figures as `name`.json and the page about them as `name`.md into a folder, which may not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(page)
