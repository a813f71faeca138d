"""Where the store is."""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import UsageError


def default_home() -> Path:
    """`$FLOWCTL_HOME`, or `.flowctl` in the current directory. Raises UsageError for a home of an unknown user."""
    given = os.environ.get("FLOWCTL_HOME") or ".flowctl"
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        remedy = "Write the path without ~."
        raise UsageError("FLOWCTL_HOME must start with the home of a user who exists", given, remedy) from None
