"""`ui`: the server that it becomes."""

import os
import socket

import pytest

from storage.errors import InputError
from tests.flows.faults import fault


@pytest.fixture
def served(monkeypatch):
    """The command and the environment of the server."""
    seen = []
    monkeypatch.setattr("flows.session.settings.configure", lambda: None)
    monkeypatch.setattr("flows.session.settings.confine", lambda home: home.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr("flows.orchestration.reports.start", lambda home, port: f"http://127.0.0.1:{port}")
    monkeypatch.setattr(os, "chdir", lambda path: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "execve", lambda program, words, environment: seen.append((words[1:], environment)))
    return seen


def test_ui_prints_its_address(flowctl, home, served, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    result = flowctl("ui", "--port", "4299")
    assert "http://127.0.0.1:4299" in result.stdout
    assert "export PREFECT_API_URL=http://127.0.0.1:4299/api" in result.stdout
    ((words, environment),) = served
    assert "http://127.0.0.1:4300" in result.stdout and words == ["-P", "-m", "prefect", "server", "start"]
    assert environment["PREFECT_SERVER_API_PORT"] == "4299" and environment["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert environment["PREFECT_UI_API_URL"] == "http://127.0.0.1:4299/api"  # the pages need the port too
    assert "PYTHONWARNINGS" not in environment  # Prefect's code warns


def test_ui_needs_a_free_port(flowctl, home, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = fault(flowctl("ui", "--port", port))
    assert isinstance(error, InputError) and error.value == port and not served
