"""The web server for reports: files of published reports on loopback, and nothing else."""

import http.client
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from flows.orchestration import reports
from tests.shared import HANGS


@pytest.fixture
def home(tmp_path):
    """A store with one report that has a link out of it, other artifacts, and a secret."""
    home = tmp_path / "store"
    report = home / "artifacts" / "report" / "nfm digits-0123456789ab"
    (report / "pictures").mkdir(parents=True)
    (report / "report.html").write_text("<p>figures</p>")
    (report / "pictures" / "a.png").write_bytes(b"\x89PNG")
    (home / "artifacts" / "student").mkdir()
    (home / "artifacts" / "student" / "weights").write_text("secret")
    (home / "artifacts" / "report" / "loose").write_text("secret")
    (report / "out").symlink_to(home / "artifacts" / "student")
    (home / "prefect").mkdir()
    return home


@pytest.fixture
def server(home):
    """A server whose parent is a process that can be ended."""
    code = (
        "import sys; from pathlib import Path; from flows.orchestration import reports\n"
        "print(reports.start(Path(sys.argv[1]), 0), flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    parent.url = parent.stdout.readline().strip()
    yield parent
    parent.kill()
    parent.communicate()


def until(condition) -> None:
    deadline = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def get(url: str, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str, bytes]:
    """Status, type and body; the path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request(method, path, headers={"Host": host or urlsplit(url).netloc})
    reply = connection.getresponse()
    return reply.status, reply.headers.get("Content-Type", ""), reply.read()


def test_a_page_and_its_pictures_are_given_out_under_the_url_that_a_run_can_ask_for(home, server):
    until(lambda: reports.base_url(home) is not None)
    url = reports.base_url(home)
    assert url == server.url and urlsplit(url).hostname == "127.0.0.1"
    page = next((home / "artifacts" / "report").glob("*/report.html"))
    link = reports.url_of(page, home)
    assert link == f"{url}/nfm%20digits-0123456789ab/report.html"
    assert get(url, urlsplit(link).path) == (200, "text/html", b"<p>figures</p>")
    assert get(url, urlsplit(link).path, "HEAD")[::2] == (200, b"")
    assert get(url, "/nfm%20digits-0123456789ab/pictures/a.png")[:2] == (200, "image/png")
    assert reports.url_of(home / "artifacts" / "student" / "weights", home) is None


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nfm%20digits-0123456789ab",
        "/nfm%20digits-0123456789ab/pictures/",
        "/loose",
        "/../student/weights",
        "/nfm%20digits-0123456789ab/../../student/weights",
        "/nfm%20digits-0123456789ab/%2e%2e/%2e%2e/student/weights",
        "/nfm%20digits-0123456789ab/..%2f..%2fstudent/weights",
        "/nfm%20digits-0123456789ab/out/weights",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/nfm%20digits-0123456789ab/report.html%00",
        "/%ff",
        "http://elsewhere/etc/passwd",
    ],
)
def test_nothing_else_is_given_out(server, path):
    status, _, body = get(server.url, path)
    assert status == 404 and b"secret" not in body and b"root:" not in body


def test_a_page_of_another_site_and_other_methods_are_refused(server):
    path = "/nfm%20digits-0123456789ab/report.html"
    assert get(server.url, path, host="attacker.example:80")[0] == 403
    assert get(server.url, path, host=f"localhost:{urlsplit(server.url).port}")[0] == 200
    assert get(server.url, path, "POST")[0] == 501


def test_a_server_that_is_gone_has_no_url(home, server):
    until(lambda: reports.base_url(home) is not None)
    server.kill()
    server.wait()
    until(lambda: reports.base_url(home) is None)  # it notices that its parent is gone
    assert (home / "prefect" / "reports.json").exists()


def test_a_store_that_was_never_served_has_no_url(tmp_path):
    assert reports.base_url(tmp_path) is None
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "reports.json").write_text("nonsense")
    assert reports.base_url(tmp_path) is None
    assert os.listdir(tmp_path / "prefect") == ["reports.json"]
