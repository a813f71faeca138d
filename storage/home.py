"""Where the store is."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """`$FLOWCTL_HOME`, or `.flowctl` in the current directory."""
    return Path(os.environ.get("FLOWCTL_HOME") or ".flowctl").expanduser().absolute()
