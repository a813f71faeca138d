"""Whole processes with an embedded Prefect: no server, no configuration, signals and neighbours."""

import json
import os
import signal
import sqlite3
import time

import pytest

from tests.shared import HANGS

SLOW_COUPLINGS = json.dumps({"bank": {"steps": 600, "seconds": 0.2}})
UNTIL = ("--until", "bank")


def _states(home):
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        return [name for (name,) in database.execute("select state_name from flow_run order by created")]


def _wait_until_saved(home, process):
    deadline = time.monotonic() + HANGS
    while not list((home / "work" / "bank").glob("*/saved.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as stream:
        return [int(child) for child in stream.read().split()]


@pytest.mark.slow
def test_ctrl_c_on_the_terminal_and_a_second_process(program, flowctl, home, tiny, migrated):
    """The second process waits for the first; Ctrl-C to the first saves, and the second takes over."""
    migrated(home)
    first = program("run", tiny, *UNTIL, FAKES=SLOW_COUPLINGS)
    _wait_until_saved(home, first)
    (running,) = json.loads(flowctl("status", "--json").stdout)
    assert (running["state"], running["pid"], running["recipe"]) == ("running", first.pid, "tiny")
    second = program("run", tiny, *UNTIL)
    line = ""
    while "waiting" not in line:
        line = second.stderr.readline()
        assert line or second.poll() is None
    assert line.startswith(f"bank: waiting for process {first.pid} on ")
    running, waiting = json.loads(flowctl("status", "--json").stdout)
    assert (running["pid"], waiting["pid"], waiting["state"]) == (first.pid, second.pid, "waiting")
    assert waiting["stage"] == "bank" and waiting["waits_for"].startswith(f"process {first.pid} on ")

    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=HANGS)
    assert first.returncode == 1
    assert err.splitlines()[-2].startswith("Ctrl-C: saving")
    assert err.splitlines()[-1].startswith("error: Stopped in stage bank (Ctrl-C)")
    _, err = second.communicate(timeout=HANGS)
    assert second.returncode == 0 and "bank: resumed" in err, err
    assert _states(home) == ["Cancelled", "Completed"]
    assert (home / "prefect" / "server.log").read_text() == ""


@pytest.mark.slow
def test_kill_9_leaves_no_server_and_no_running_flow(program, home, tiny):
    first = program("run", tiny, *UNTIL, FAKES=SLOW_COUPLINGS)
    _wait_until_saved(home, first)
    servers = _children(first.pid)
    first.kill()
    first.wait()
    assert _states(home) == ["Running"]
    deadline = time.monotonic() + HANGS
    while any(os.path.exists(f"/proc/{server}") for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers and not any(os.path.exists(f"/proc/{server}") for server in servers)
    second = program("run", tiny, *UNTIL)
    _, err = second.communicate(timeout=HANGS)
    assert second.returncode == 0 and "bank: resumed" in err, err
    assert _states(home) == ["Crashed", "Completed"]
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        assert not database.execute("select name from task_run where state_name = 'Running'").fetchall()


@pytest.mark.slow
def test_four_at_once_on_a_new_store(program, home, tiny):
    processes = [program("run", tiny, "--set", f"seed={seed}") for seed in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err
    assert _states(home) == ["Completed"] * 4
