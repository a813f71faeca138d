"""A database of embedded servers is used by one machine at a time.

The servers of one machine share Prefect's SQLite file. Those of two machines, which share the store's disk alone, would
damage it: its log is kept in memory that only one kernel shares. Each server therefore holds a lock that names its
machine, and where another machine holds the database, it takes another folder. The kernel frees a lock with its server.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from storage.locks import held

TURN = "migration.lock"  # which serve.py takes too: who holds it is alone with the database


def machine() -> str:
    """The running kernel: containers on it have its memory in common, whatever their host names say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


@contextmanager
def claimed(home: Path) -> Iterator[tuple[Path, IO[str]]]:
    """A folder for the database, and the lock of this machine on it, held until the last process that has the file open
    closes it: `home`, or one in it where servers of another machine use that. While the block lasts no other process
    looks at the database or changes its place."""
    name = re.sub(r"[^\w.-]", "-", socket.gethostname())
    for number in itertools.count():
        folder = home / f"on-{name}{f'-{number}' if number > 1 else ''}" if number else home
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / TURN, "a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if (lock := _claim(folder)) is not None:
                yield folder, lock
                return


def _claim(folder: Path) -> IO[str] | None:
    """The lock of this machine; None where another machine holds its own."""
    mine = folder / f"machine-{machine()}.lock"
    for path in folder.glob("machine-*.lock"):
        if path != mine:
            if held(path, shared=True):
                return None
            path.unlink(missing_ok=True)
    stream = open(mine, "a+")  # noqa: SIM115 - also to be read, which NFS asks of a shared lock
    fcntl.flock(stream, fcntl.LOCK_SH)
    with suppress(OSError):  # for people; on a full disk the machine stays without a name
        os.ftruncate(stream.fileno(), 0)
        stream.write(socket.gethostname())
        stream.flush()
    return stream
