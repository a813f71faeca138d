"""One machine at a time uses the database of a store's embedded servers.

The servers of one machine share Prefect's SQLite file. Those of two machines, which share the store's disk alone, would
damage it: its log is kept in memory that only one kernel shares. Each server therefore holds a lock that names its
machine, and none starts where the lock of another machine is held. The kernel frees it with the server.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from storage.errors import BusyError

TURN = "migration.lock"  # which serve.py takes too: who holds it is alone with the database


def machine() -> str:
    """The running kernel: containers on it have its memory in common, whatever their host names say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


@contextmanager
def turn(home: Path) -> Iterator[None]:
    """Look at the database, or change its place, while no other process does."""
    with open(home / TURN, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def claim(home: Path) -> IO[str]:
    """The lock of this machine, held until the last process that has the file open closes it. Call in one's `turn`.

    Raises BusyError where a server of another machine uses the database.
    """
    mine = home / f"machine-{machine()}.lock"
    for path in home.glob("machine-*.lock"):
        if path == mine:
            continue
        if (other := _user(path)) is not None:
            raise BusyError(
                f"The history of runs in {home} must be used by one machine at a time, because it is an SQLite file, "
                f"got {socket.gethostname()} while a server on {other} uses it. Start one Prefect server that both "
                "reach, and set PREFECT_API_URL to it on both, or wait until the runs there have ended."
            )
        path.unlink(missing_ok=True)
    stream = open(mine, "a+")  # noqa: SIM115 - also to be read, which NFS asks of a shared lock
    fcntl.flock(stream, fcntl.LOCK_SH)
    with suppress(OSError):  # on a full disk the machine stays without a name
        os.ftruncate(stream.fileno(), 0)
        stream.write(socket.gethostname())
        stream.flush()
    return stream


def _user(path: Path) -> str | None:
    """The name of the machine whose servers hold this lock; None if none does."""
    try:
        with open(path, "r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return path.read_text() or "another machine"
    return None
