"""The smoke test's store is temporary, also when the test is ended from outside."""

import json
import os
import signal
import tempfile
import time

import pytest

from flows.session.smoke_test import _stopped_at_once, run_smoke_test
from pipeline.recipe.load import load
from storage.errors import UsageError
from tests.shared import HANGS


@pytest.mark.slow
@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_smoke_test_that_is_ended_removes_its_store(program, home, tiny, tmp_path, number):
    slow = json.dumps({"teacher": {"steps": 600, "seconds": 0.1}})
    process = program("run", tiny, "--smoke-test", FAKES=slow, TMPDIR=str(tmp_path))
    deadline = time.monotonic() + HANGS
    while not list(tmp_path.glob("flowctl-smoke-test-*/work/teacher/*/saved.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(HANGS) == 1
    assert not list(tmp_path.glob("flowctl-smoke-test-*")) and not home.exists()


def test_without_a_place_for_its_store_it_says_so(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file" / "missing"))
    with pytest.raises(UsageError):
        run_smoke_test(load(tiny))


def test_several_machines_are_refused(tiny):
    """Each would have a store of its own, and wait for the others."""
    machines = ["compute.nnodes=2", "compute.rendezvous=here:29400"]
    with pytest.raises(UsageError):
        run_smoke_test(load(tiny, machines))


def test_a_closed_terminal_ends_it_unless_hangups_are_ignored(not_under_nohup):
    with pytest.raises(KeyboardInterrupt), _stopped_at_once():
        os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _stopped_at_once():
        os.kill(os.getpid(), signal.SIGHUP)
