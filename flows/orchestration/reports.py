"""A web server on loopback for the reports of a store, next to Prefect's UI: a browser opens no file from its pages.

It runs as a process by its path, imports nothing of ours, and ends with its parent. It gives out files of published
reports, and nothing else: no listing, no other artifact, nothing behind a link that leaves the reports.
"""

from __future__ import annotations

import fcntl
import json
import mimetypes
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

HOSTS = ("127.0.0.1", "localhost")  # a page of another site that resolves its name to this machine is refused
_PARENT_OF: list[subprocess.Popen] = []  # so that nothing closes their pipes before this process ends


def start(home: Path, port: int) -> str:
    """Serve the reports of the store at `home` on `port`, or on any where that is taken; the URL. Survives exec."""
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError):  # in use, or beyond the last one
        listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(home), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        os.set_inheritable(process.stdin.fileno(), True)  # the pipe ends with the program that takes our place
        _PARENT_OF.append(process)
        return _url(listener)


def base_url(home: Path) -> str | None:
    """Where a living server gives out the reports of the store at `home`; None if there is none."""
    try:
        with open(_record(home)) as record:
            try:
                fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # held by the server, as long as it lives
                return str(json.load(record)["url"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def url_of(page: Path, home: Path) -> str | None:
    """The URL of a file of a published report; None if no server gives it out."""
    base, folder = base_url(home), _folder(home)
    if base is None or not page.is_relative_to(folder):
        return None
    return f"{base}/{quote(str(page.relative_to(folder)))}"


def _folder(home: Path) -> Path:
    return home / "artifacts" / "report"


def _record(home: Path) -> Path:
    return home / "prefect" / "reports.json"


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of a file below the folder of reports."""

    folder: Path
    server_version, sys_version = "flowctl", ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        stream = self._opened()
        if stream is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with stream, suppress(ConnectionError):  # of a browser that wants it no more
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", mimetypes.guess_type(stream.name)[0] or "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(stream.fileno()).st_size))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                shutil.copyfileobj(stream, self.wfile)

    def _opened(self) -> BinaryIO | None:
        """The file that the request names, if it lies in a report and may be read."""
        try:
            name = unquote(urlsplit(self.path).path, errors="strict").lstrip("/")
            file = (self.folder / name).resolve(strict=True)
            inside = file.is_relative_to(self.folder) and len(file.relative_to(self.folder).parts) > 1
            return open(file, "rb") if inside and file.is_file() else None
        except (OSError, ValueError, RuntimeError):
            return None

    def log_message(self, format: str, *words: object) -> None:
        """Say nothing."""


def main(home: Path, descriptor: int) -> None:
    """Serve until the parent is gone."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    listener = socket.socket(fileno=descriptor)
    Handler.folder = _folder(home).resolve()
    server = ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_port = listener.getsockname()[1]
    threading.Thread(target=_tell, args=(_record(home), _url(listener)), daemon=True).start()
    server.serve_forever()


def _tell(path: Path, url: str) -> None:
    """Write the URL where runs look it up, once no other server of this store stands there, and hold its lock."""
    record = open(path, "a")  # noqa: SIM115 - the lock ends with this process
    fcntl.flock(record, fcntl.LOCK_EX)
    record.truncate(0)
    record.write(json.dumps({"url": url, "pid": os.getpid()}))
    record.flush()
    threading.Event().wait()


def _follow_parent() -> None:
    """Standard input ends when the parent does, however it dies."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
