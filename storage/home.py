"""Where the store is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from storage.errors import UsageError


def default_home() -> Path:
    """`$FLOWCTL_HOME`, or `.flowctl` in the current directory.

    Raises UsageError for a home of an unknown user, and for a current directory that was deleted.
    """
    given = os.environ.get("FLOWCTL_HOME") or ".flowctl"
    try:
        home = Path(given).expanduser()
    except RuntimeError:
        remedy = "Write the path without ~."
        raise UsageError("FLOWCTL_HOME must start with the home of a user who exists", given, remedy) from None
    return home if home.is_absolute() else current_directory() / home


def current_directory() -> Path:
    """Raises UsageError where it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        remedy = "Change to another directory."
        raise UsageError("The current directory must exist", "one that was deleted", remedy) from None


def check_home(home: Path) -> None:
    """Raises UsageError where `home` is there and no directory, or cannot be read or reached."""
    try:
        home.lstat()
        directory = home.is_dir()
        if directory and not os.access(home, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError):
        return  # there is no store yet; `Store.prepare` says where none can be
    except OSError as error:
        raise UsageError(
            "The store must be a directory that can be read",
            f"{home} ({error.strerror})",
            "Set FLOWCTL_HOME to another path, or change the permissions of it and the directories above it",
        ) from None
    if not directory:
        raise UsageError(
            "The store must be a directory", str(home), "Set FLOWCTL_HOME to another path, or repair the link."
        )
