"""The server of reports: files of published reports and nothing else, whatever a browser does."""

import http.client
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from flows.orchestration import reports
from tests.shared import HANGS


@pytest.fixture
def server(tmp_path):
    """`(port, folder, process)` of a server as a process, whose errors can be read."""
    folder = tmp_path / "artifacts" / "report" / "tiny-0123456789ab"
    folder.mkdir(parents=True)
    (tmp_path / "prefect").mkdir()
    (folder / "report.html").write_bytes(b"x" * 20_000_000)  # more than a socket holds
    (folder.parent / "beyond.html").write_text("not in a report")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-P", reports.__file__, str(tmp_path), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        port = listener.getsockname()[1]
    yield port, folder, process
    process.communicate(timeout=HANGS)


def answer(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS)
    connection.request(method, path)
    response = connection.getresponse()
    size = response.getheader("Content-Length")
    connection.close()
    return response.status, None if size is None or response.status != 200 else int(size)


def test_a_load_that_a_browser_breaks_off_is_no_error(server):
    port, folder, process = server
    path = f"/{folder.name}/report.html"
    with socket.create_connection(("127.0.0.1", port), timeout=HANGS) as browser:
        browser.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert browser.recv(100)
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    assert answer(port, path, "HEAD") == (200, 20_000_000)
    _, errors = process.communicate(timeout=HANGS)  # the parent's end is its end
    assert errors == b""


def test_nothing_but_files_of_reports_is_given_out(server):
    port, folder, _ = server
    (folder / "link.html").symlink_to("/etc/hostname")
    for path in ("/", f"/{folder.name}", "/beyond.html", f"/{folder.name}/../../report/beyond.html", "/%ff"):
        assert answer(port, path)[0] == 404, path
    assert answer(port, f"/{folder.name}/link.html")[0] == 404


def test_a_file_that_is_removed_meanwhile_is_not_found(tmp_path, monkeypatch):
    handler = object.__new__(reports.Handler)
    handler.headers, seen = {"Host": "127.0.0.1:80"}, []
    handler.folder, handler.path = tmp_path, "/report/gone"
    gone = tmp_path / "report" / "gone"
    gone.parent.mkdir()
    gone.touch()
    monkeypatch.setattr(Path, "is_file", lambda path: path.unlink() is None)
    monkeypatch.setattr(handler, "send_error", seen.append, raising=False)
    handler.do_GET()
    assert [int(status) for status in seen] == [404]
