"""`flowctl` in a child process: its exit code, its signals, and whose packages it imports."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from flows.session import child
from tests.environment.test_packages import write_foreign

SLEEPER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
signal.signal(signal.SIGINT, lambda *_: sys.exit(9))
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def test_sigterm_is_passed_on_and_ctrl_c_is_left_to_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "PROGRAM", (sys.executable, "-c", SLEEPER))
    ready, before = tmp_path / "ready", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def send():
        deadline = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)  # of this process alone: a terminal's would reach the child too
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert child.run_child([str(ready)]) == 7
    thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_any_thread_may_start_a_child(monkeypatch):
    monkeypatch.setattr(child, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(3)"))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(child.run_child, []).result() == 3


def test_the_child_is_our_program_wherever_it_is_started(tmp_path):
    write_foreign(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*child.PROGRAM, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "restartable DAG" in done.stdout, done.stderr
