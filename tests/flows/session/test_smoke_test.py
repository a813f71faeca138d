"""The smoke test's store is temporary, also when the test is ended from outside."""

import json
import signal
import time

import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_smoke_test_that_is_ended_removes_its_store(program, home, tiny, tmp_path, number):
    slow = json.dumps({"teacher": {"steps": 600, "seconds": 0.1}})
    process = program("run", tiny, "--smoke-test", FAKES=slow, TMPDIR=str(tmp_path))
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("flowctl-smoke-test-*/work/teacher/*/saved.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == 1
    assert not list(tmp_path.glob("flowctl-smoke-test-*")) and not home.exists()
