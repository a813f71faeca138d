"""Commands that do something without Prefect: rehearse, serve, sample."""

import os
import socket

import pytest


def test_a_rehearsal_runs_every_stage_and_keeps_nothing(flowctl, home, tiny):
    result = flowctl("run", tiny, "--smoke-test")
    assert result.exit_code == 0, result.output
    assert "Smoke-tested data, reference, teacher, bank, student, evaluation, report" in result.stdout
    assert "teacher: 10 step of 7 parameters" in result.stdout
    assert result.stderr.count(": run …") == 7
    assert not home.exists()


def test_a_rehearsal_that_fails_is_a_failed_stage(flowctl, tiny, monkeypatch):
    monkeypatch.setenv("FAKES", '{"student": {"fail": "ValueError"}}')
    result = flowctl("run", tiny, "--smoke-test")
    assert result.exit_code == 1 and "error: Stage student failed: ValueError: boom" in result.stderr


@pytest.fixture
def served(monkeypatch):
    """What `ui` would become, and its environment."""
    seen = []
    monkeypatch.setattr("flows.session.settings.configure", lambda: None)
    monkeypatch.setattr("flows.session.settings.confine", lambda home: home.mkdir())
    monkeypatch.setattr("flows.orchestration.reports.start", lambda home, port: f"http://127.0.0.1:{port}")
    monkeypatch.setattr(os, "chdir", lambda folder: seen.append(folder))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "execv", lambda program, words: seen.append((words[1:], os.environ)))
    return seen


def test_ui_says_where_it_is_and_how_to_be_seen_there(flowctl, home, served):
    result = flowctl("ui", "--port", "4299")
    assert "http://127.0.0.1:4299" in result.stdout
    assert "export PREFECT_API_URL=http://127.0.0.1:4299/api" in result.stdout
    assert "http://127.0.0.1:4300" in result.stdout  # the reports
    folder, (words, environment) = served
    assert folder == home / "prefect" and words == ["-P", "-m", "prefect", "server", "start"]
    assert environment["PREFECT_SERVER_API_PORT"] == "4299" and environment["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert environment["PREFECT_UI_API_URL"] == "http://127.0.0.1:4299/api"  # the port is told to the pages


def test_ui_needs_a_free_port(flowctl, home, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = flowctl("ui", "--port", taken.getsockname()[1])
    assert result.exit_code == 2 and "must be free" in result.stderr and not served


def test_sample_hands_over_what_is_asked(flowctl, finished, tiny, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("flows.views.samples.draw", lambda recipe, wish: seen.update(wish=wish) or (None, None, 17))
    monkeypatch.setattr("flows.views.samples.write", lambda out, *_: seen.update(out=out))
    result = flowctl(
        "sample",
        tiny,
        "--steps",
        4,
        "--solver",
        "heun",
        "--class",
        "3",
        "--guidance",
        1.5,
        "--seed",
        9,
        "--count",
        5,
        "--out",
        tmp_path / "a.npz",
    )
    assert result.exit_code == 0, result.output
    from flows.views.samples import Wish

    assert seen == {"wish": Wish("student", 4, "heun", "3", 1.5, 9, 5), "out": tmp_path / "a.npz"}
