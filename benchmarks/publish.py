"""The two files of a benchmark's figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def publish(folder: Path, name: str, figures: Mapping[str, Any], page: str) -> None:
    """Write the figures as `name`.json and the page about them as `name`.md into a folder, which may not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(page)
