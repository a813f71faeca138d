"""An embedded Prefect server: a child process on loopback that lives as long as ours.

Prefect can start such a server by itself. This one differs: it starts while the slow imports run, takes a free port
that no other process can take in between, does not receive the terminal's Ctrl-C (so that a stage can save and still
report), dies with its parent even on kill -9, waits while another one migrates the same database (see
flows/orchestration/serve.py), and takes none of the user's settings of Prefect (see flows/session/settings.py).
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import IO

from flows.orchestration import database_lock
from flows.orchestration.server_errors import ServerFailed, ServerRefused, ServerUnread, explained, first_line
from flows.session import settings
from flows.session.display import say
from storage.required import required
from storage.text import without_password

CHILD = Path(__file__).with_name("serve.py")  # by path: it imports nothing of ours
ANSWER_SECONDS = 5.0
NOTE_SECONDS = 60.0  # after which a start is said to be slow: a cold database needs half a minute
START_SECONDS = 1800.0  # until it is given up: a machine on which others use all CPUs needs many minutes


class EmbeddedServer:
    """A starting server: do slow imports, then `wait` until it answers. It ends with this process."""

    def __init__(self, home: Path) -> None:
        self.home, database = claim_database(home)
        settings.confine(self.home)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self.log = self.home / "server.log"
        with listener, database, open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD), str(listener.fileno())],
                cwd=self.home,
                env=environment(),
                pass_fds=[listener.fileno(), database.fileno()],  # the claim lasts as long as the server
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # At exit, and registered before Prefect is imported, so that Prefect's own last logs and events come first.
        atexit.register(self._stop)
        os.environ["PREFECT_API_URL"] = self.url
        settings.import_client(self.url, self.home)

    def wait(self) -> None:
        """Block until the server answers. Raises ServerFailed if it does not."""
        began, noted = time.monotonic(), False
        while self._process.poll() is None and (waited := time.monotonic() - began) < START_SECONDS:
            if answers(self.url):
                return
            if waited > NOTE_SECONDS and not noted:
                noted = True
                say("The embedded Prefect server starts slowly: the machine is busy, or another process migrates it")
            time.sleep(0.05)
        if (code := self._process.poll()) is None:
            found, remedy = (
                f"after {START_SECONDS:.0f} s it has not",
                "Run the same command when the machine is less busy",
            )
        else:
            found, remedy = f"it ended with status {code}", f"Read its log, {self.log}"
        raise ServerFailed(
            f"The embedded Prefect server must answer, but {found}. {remedy}. "
            "To do without it, start a server and set PREFECT_API_URL."
        )

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def environment() -> dict[str, str]:
    """Of a server of our own. Prefect's code warns, so where warnings are errors the server would not live long."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}


def claim_database(home: Path) -> tuple[Path, IO[str]]:
    """A folder whose database this machine alone uses and the installed Prefect can read, and the open lock on it."""
    with database_lock.claimed(home) as (folder, lock):
        set_aside_unreadable(folder)
    if folder != home:
        print(
            f"warning: Servers of another machine use the history of runs in {home}, so this machine's goes to "
            f"{folder}. Set PREFECT_API_URL on both to one server if you want one history. Results are not concerned.",
            file=sys.stderr,
            flush=True,
        )
    return folder, lock


def set_aside_unreadable(home: Path) -> None:
    """Rename a database that the installed Prefect cannot read, and say so: it holds the history of runs, no result."""
    database = home / "prefect.db"
    why = _unreadable(database)
    if why is None:
        return
    aside = home / f"prefect-aside-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.db"
    for ending in ("-wal", "-shm", ""):
        if Path(f"{database}{ending}").exists():
            os.rename(f"{database}{ending}", f"{aside}{ending}")
    print(
        f"warning: The history of runs in {database} {why}. It is renamed to {aside.name}, and a new history begins. "
        "No result is lost.",
        file=sys.stderr,
        flush=True,
    )


def _unreadable(database: Path) -> str | None:
    """Why Prefect cannot read its database: damage, or a migration that only a newer version knows. None if it can."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(database)) as connection:
            schema = {revision for (revision,) in connection.execute("select version_num from alembic_version")}
    except sqlite3.OperationalError:  # no schema yet, or a lock, or a disk that the server will complain about
        return None
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    unknown = schema - _migrations()
    return f"is of a newer Prefect (schema {', '.join(sorted(unknown))})" if unknown else None


def _migrations() -> set[str]:
    """The schemas of SQLite that the installed Prefect knows, read from its files: importing it takes seconds."""
    spec = required(importlib.util.find_spec("prefect"), "Prefect")
    [folder] = required(spec.submodule_search_locations, "its folder")
    files = (Path(folder) / "server/database/_migrations/versions/sqlite").glob("*.py")
    matches = (re.search(r"^revision\b.*?=\s*[\"'](\w+)", file.read_text(), re.MULTILINE) for file in files)
    return {match[1] for match in matches if match}


def answers(url: str) -> bool:
    """Whether our own server at `url` says that it is healthy. It is asked without a proxy."""
    try:
        proxies = urllib.request.ProxyHandler({})
        with urllib.request.build_opener(proxies).open(f"{url}/health", timeout=ANSWER_SECONDS) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False


def check_server() -> None:
    """Connect to the server that the user has named. Raises ServerFailed if it does not answer, ServerRefused if it
    answers with an error, ServerUnread if it does not answer as Prefect's does."""
    url = required(settings.server_url(), "PREFECT_API_URL")
    try:
        settings.import_client(url)
        _ask()
    except Exception as error:
        where = f"at PREFECT_API_URL, {without_password(url)},"
        if isinstance(known := explained(error, where, "its log"), ServerRefused | ServerUnread):
            raise known from error
        raise ServerFailed(  # of the network, or a setting such as a certificate's file
            f"The Prefect server {where} must answer, got {first_line(error)!r}. "
            "Start it (`flowctl ui`), correct the URL, which ends in /api, or unset PREFECT_API_URL to run without one."
        ) from error


def _ask() -> None:
    """Ask the user's server whether it is Prefect's and healthy, as the flow will: by Prefect's client, with the
    user's certificates, keys and headers. Raises what is in the way."""
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client

    with get_client({"timeout": ANSWER_SECONDS}, sync_client=True) as client:
        if error := client.api_healthcheck():
            raise error
        if client.server_type == ServerType.CLOUD:  # it has no version
            return
        try:
            version = client.api_version()
        except ValueError:  # no JSON
            version = None
        if not isinstance(version, str):
            raise ServerUnread(
                f"PREFECT_API_URL must name the API of a Prefect server, got {without_password(str(client.api_url))}, "
                "which answers otherwise. Correct the URL, which ends in /api, or unset it to run without a server."
            )
