"""Prefect's API server as a child process that ends with its parent; see flows/orchestration/server.py.

The current directory is the server's home.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import socket
import sys
import threading


def main(descriptor: int) -> None:
    """Serve Prefect's API on the socket until SIGTERM, or until the parent is gone."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.environ["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"  # done below, one process at a time
    gc.disable()  # takes a quarter of the time of these imports, and finds nothing
    import uvicorn
    from prefect.server.api.server import create_app

    _migrate()
    app = create_app(ephemeral=True, final=True)
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _migrate() -> None:
    """Bring the database up to date. Two processes at once on a new database would break each other's migrations."""
    from prefect.server.database import provide_database_interface

    with open("migration.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(provide_database_interface().create_db())


def _follow_parent() -> None:
    """Standard input ends when the parent does, however it dies."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]))
