"""Lock files. The kernel drops a lock with its holder, on this machine or another that shares the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from storage.errors import UsageError

# Seconds that a lock is tried for: a process that only looks whether it is held also holds it for an instant.
PATIENCE = 0.3
POLL = 0.02  # seconds


def take(path: Path) -> IO[str] | None:
    """The lock file, locked until it is closed; None if another holds it. Raises UsageError where a disk has no locks.

    It is opened for each try, for it may be deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    while True:
        stream = open(path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(stream.fileno()).st_ino == os.stat(path).st_ino:
                return stream
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError as error:
            stream.close()
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise UsageError(
                    "The store must be on a file system with locks (flock)",
                    f"{path}: {error.strerror}",
                    "Set FLOWCTL_HOME to another disk, or mount this one with locks",
                ) from None
            raise
        stream.close()
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL)


def held(path: Path, shared: bool = False) -> bool:
    """Whether a living process holds the lock file, in whatever container, or on whatever machine with this disk; with
    `shared`, also where processes share it, which needs a file that can be written to."""
    try:
        with open(path, "r+" if shared else "r") as stream:
            fcntl.flock(stream, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
