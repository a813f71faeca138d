"""The embedded Prefect server and its client: nothing of the user's settings, no proxy, any path, any old database."""

import json
import sqlite3
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from flows.orchestration import server as embedded
from flows.orchestration.server import EmbeddedServer, _migrations, answers, set_aside_unreadable
from flows.orchestration.server_errors import ServerFailed

# Nothing listens on port 9 ("discard"); nobody can be reached through these.
PROXIES = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
THEIRS = {
    "PREFECT_API_AUTH_STRING": "user:password",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///theirs.db",
    "prefect_api_database_timeout": "77",
    "PREFECT_LOGGING_LEVEL": "nonsense",
    "PREFECT_PROFILE": "work",
}


CONNECT = """
from flows.session.settings import configure; configure()
from flows.orchestration.server import check_server
from storage.errors import FlowctlError
try:
    check_server()
except FlowctlError as failed:
    print(type(failed).__name__, getattr(failed, "status", ""), failed)
"""


@contextmanager
def serving(answer):
    """A server that answers a handler's request by `answer(handler)`, a status and a body; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def as_prefect(handler):
    found = {"/api/health": b"true", "/api/admin/version": b'"3.8.8"'}.get(handler.path)
    return (200, found) if found else (404, b"{}")


@pytest.fixture
def healthy():
    """The API of a server that says it is healthy, as Prefect's does."""
    with serving(as_prefect) as url:
        yield f"{url}/api"


@pytest.mark.parametrize("status", [None, 3])
def test_a_server_that_ended_has_a_log_to_read_and_a_slow_one_has_not(tmp_path, monkeypatch, status):
    server = object.__new__(EmbeddedServer)
    server._process, server.log, server.url = (
        SimpleNamespace(poll=lambda: status),
        tmp_path / "log",
        "http://127.0.0.1:9",
    )
    monkeypatch.setattr(embedded, "START_SECONDS", 0.0)
    with pytest.raises(ServerFailed) as raised:
        server.wait()
    assert (str(server.log) in str(raised.value)) == (status is not None)


def test_our_health_check_uses_no_proxy(healthy, monkeypatch):
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    assert answers(healthy)


def test_a_slash_at_the_end_of_the_url_makes_no_difference(place, healthy):
    done = place.python(CONNECT, PREFECT_API_URL=f"{healthy}/")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_server_behind_a_key_is_asked_with_the_users_headers(place):
    with serving(lambda handler: as_prefect(handler) if handler.headers["X-Key"] == "ours" else (403, b"{}")) as url:
        header = {"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Key": "ours"}'}
        done = place.python(CONNECT, PREFECT_API_URL=f"{url}/api", **header)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert place.python(CONNECT, PREFECT_API_URL=f"{url}/api").stdout.startswith("ServerRefused 403 ")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (as_prefect, "ServerRefused 404 "),
        (lambda handler: (200, b"<html>"), "ServerUnread "),
        (lambda handler: (200, b"true"), "ServerUnread "),
    ],
)
def test_a_server_that_is_not_prefects_is_refused_with_the_reason(place, answer, why):
    with serving(answer) as url:
        done = place.python(CONNECT, PREFECT_API_URL=url)  # without /api
    assert done.returncode == 0 and url in done.stdout and done.stdout.startswith(why), done.stderr


@pytest.mark.parametrize(
    "setting", [{}, {"PREFECT_API_SSL_CERT_FILE": "/gone.pem"}, {"PREFECT_API_URL": "http://[::1"}]
)
def test_no_answer_and_wrong_settings_are_one_error(place, setting):
    done = place.python(CONNECT, **{"PREFECT_API_URL": "http://127.0.0.1:9/api"} | setting)
    assert done.returncode == 0 and done.stdout.startswith("ServerFailed "), done.stderr


def test_a_server_that_refuses_a_deployment_is_quoted(place, healthy):
    done = place.flowctl("deploy", "tiny.yaml", PREFECT_API_URL=healthy)  # which has no POST
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "HTTP 501" in done.stderr, done.stderr


def test_the_client_of_prefect_uses_no_proxy_for_a_server_on_this_machine(place, healthy):
    code = (
        "from flows.session.settings import configure; configure()\n"
        "from flows.orchestration.server import check_server; check_server()\n"
        "from prefect.client.orchestration import get_client\n"
        "print('healthcheck', get_client(sync_client=True).api_healthcheck())"
    )
    done = place.python(code, **PROXIES, PREFECT_API_URL=healthy)
    assert done.stdout == "healthcheck None\n", done.stderr  # None is no exception


def test_proxies_stay_for_other_hosts(monkeypatch):
    import urllib.request

    from flows.session.process import bypass_proxies

    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "intranet")
    bypass_proxies()
    exempt = [
        host for host in ("127.0.0.1", "localhost", "intranet", "example.org") if urllib.request.proxy_bypass(host)
    ]
    assert exempt == ["127.0.0.1", "localhost", "intranet"]
    assert urllib.request.getproxies()["http"] == "http://proxy:3128"


def write_their_settings(folder):
    """As files in the current directory of a project that uses Prefect."""
    (folder / ".env").write_text("PREFECT_API_AUTH_STRING=a:b\nPREFECT_SERVER_DATABASE_ECHO=true\n")
    (folder / "prefect.toml").write_text('profiles_path = "profiles.toml"\n[api]\nkey = "x"\n')
    (folder / "profiles.toml").write_text('active = "work"\n[profiles.work]\nPREFECT_API_REQUEST_TIMEOUT = "7"\n')
    (folder / "pyproject.toml").write_text("[tool.prefect.tasks]\ndefault_retries = 7\n")


def test_a_server_of_our_own_and_its_client_take_none_of_the_users_settings(place):
    write_their_settings(place.folder / "cwd")
    code = (
        "import json, os; from pathlib import Path\n"
        "from flows.session import settings\n"
        "settings.configure(); home = Path(os.environ['FLOWCTL_HOME']) / 'prefect'; settings.confine(home)\n"
        "settings.import_client('http://127.0.0.1:1/api', home)\n"
        "from prefect.settings import get_current_settings, temporary_settings, PREFECT_CLIENT_MAX_RETRIES\n"
        "for updates in ({}, {PREFECT_CLIENT_MAX_RETRIES: 0}):\n"  # which reads every source again
        "    with temporary_settings(updates) as now:\n"
        "        database = now.server.database\n"
        "        print(json.dumps([now.api.auth_string, now.api.key, now.api.request_timeout, now.logging.level,\n"
        "            now.tasks.default_retries, database.echo, database.timeout,\n"
        "            database.connection_url.get_secret_value()], default=str))"
    )
    done = place.python(code, **THEIRS)
    ours = [None, None, 60.0, "INFO", 0, False, 10.0, "sqlite+aiosqlite:///prefect.db"]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [ours, ours], done.stderr


def test_a_server_that_the_user_names_keeps_their_settings(place, healthy):
    code = (
        "from flows.session.settings import configure; configure()\n"
        "from flows.orchestration.server import check_server; check_server()\n"
        "from prefect.settings import get_current_settings; print(get_current_settings().api.auth_string)"
    )
    done = place.python(code, PREFECT_API_URL=healthy, PREFECT_API_AUTH_STRING="user:password")
    assert done.stdout == "**********\n", done.stderr


def test_a_block_for_results_of_another_project_is_nothing_to_us(place, healthy):
    code = (
        "from flows.session.settings import configure; configure()\n"
        "from prefect.settings import get_current_settings; print(get_current_settings().results.default_storage_block)"
    )
    done = place.python(code, PREFECT_API_URL=healthy, PREFECT_DEFAULT_RESULT_STORAGE_BLOCK="s3-bucket/other")
    assert done.stdout == "None\n", done.stderr


def database(home, *schema: str):
    with sqlite3.connect(home / "prefect.db") as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.executemany("insert into alembic_version values (?)", [(name,) for name in schema])


def test_the_history_of_a_newer_prefect_is_set_aside(tmp_path, capsys):
    database(tmp_path, "ffffffffffff")
    (tmp_path / "prefect.db-wal").touch()
    before = (tmp_path / "prefect.db").read_bytes()
    set_aside_unreadable(tmp_path)
    (aside,) = tmp_path.glob("prefect-aside-*.db")
    assert aside.read_bytes() == before and not list(tmp_path.glob("prefect.db*"))
    assert aside.name in capsys.readouterr().err


def test_a_damaged_history_is_set_aside(tmp_path, capsys):
    (tmp_path / "prefect.db").write_bytes(b"not a database, " * 100)
    set_aside_unreadable(tmp_path)
    assert list(tmp_path.glob("prefect-aside-*.db")) and not (tmp_path / "prefect.db").exists()
    assert "No result is lost" in capsys.readouterr().err


@pytest.mark.parametrize("schema", [(), (min(_migrations()),)])
def test_a_history_that_prefect_can_read_stays(tmp_path, capsys, schema):
    database(tmp_path, *schema)
    set_aside_unreadable(tmp_path)
    assert (tmp_path / "prefect.db").exists() and capsys.readouterr().err == ""


def test_all_migrations_of_the_installed_prefect_are_known(tmp_path):
    """Read from its files, so this fails if Prefect moves them."""
    assert len(_migrations()) > 50
