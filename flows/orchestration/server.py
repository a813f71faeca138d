"""An embedded Prefect server: a child process on loopback that lives as long as ours.

Prefect can start such a server by itself. This one differs in what matters here: it starts while the slow imports go
on, takes a free port that nobody else can take in between, does not hear the terminal's Ctrl-C (so that a stage can
save and still report), dies with its parent even on kill -9, and waits while another one migrates the same database
(see flows/orchestration/serve.py).
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows.session import settings
from flows.session.settings import confine
from storage.errors import FlowctlError

CHILD = Path(__file__).with_name("serve.py")  # by path: it imports nothing of ours
TIMEOUT = 300.0  # seconds; a cold database needs half a minute, and many times that on a machine that is busy


class ServerFailed(FlowctlError):
    """The embedded Prefect server, or the one that PREFECT_API_URL names, does not answer."""


class EmbeddedServer:
    """A starting server: import what is slow, then `wait` until it answers. It ends with this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        confine(home)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self.log = home / "server.log"
        with listener, open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD), str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # At exit, and registered before Prefect is imported, so that Prefect's own last logs and events come first.
        atexit.register(self._stop)
        os.environ["PREFECT_API_URL"] = self.url

    def wait(self) -> None:
        """Block until the server answers. Raises ServerFailed where it does not."""
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            if answers(self.url):
                return
            time.sleep(0.05)
        raise ServerFailed(
            f"The embedded Prefect server did not start; its log is {self.log}. "
            "Run the same command again, or start a server and set PREFECT_API_URL"
        )

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def answers(url: str, timeout: float = 5.0) -> bool:
    """Whether a Prefect server at `url` says that it is well."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=timeout) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False


def check_server() -> None:
    """Raises ServerFailed where the server that the user has named does not answer."""
    url = settings.server_url()
    if not answers(url):
        raise ServerFailed(
            f"No Prefect server answers at PREFECT_API_URL={url}. "
            "Start it (`flowctl ui`), or unset PREFECT_API_URL to run without one"
        )
