"""Signals to the parent of `flowctl run`: each child gets each of them once, wherever it was sent to."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from flows.orchestration import children
from flows.orchestration.children import Child, run_children
from pipeline.recipe.load import load
from tests.flows.conftest import ROOT
from tests.shared import HANGS

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
TO_PARENT = """
import os, signal, sys, time
number = int(sys.argv[-1])
signal.signal(number, lambda *_: sys.exit(7))
os.kill(os.getppid(), number)
time.sleep(600)
"""
# Notes its number, then each signal; the second ends it.
LISTENER = """
import os, signal, sys, time
out = open(os.environ["SAID"], "a", buffering=1)
heard = []
def hear(number, frame):
    heard.append(number)
    print(number, file=out)
    if len(heard) == 2:
        os._exit(3)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, hear)
print(os.getpid(), file=out)
while True:
    time.sleep(600)
"""
# Signals are as a terminal's shell leaves them: one that starts a process in the background ignores some for it.
PARENT = """
import os, signal, sys
for number in (signal.SIGQUIT, signal.SIGTSTP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from flows.orchestration import children
from pipeline.recipe.load import load
children.PROGRAM = (sys.executable, "-c", os.environ["LISTENER"])
child = children.Child(load("nfm-digits"), "a")
sys.exit(children.run_children([child], print)[child])
"""


def until(condition):
    """What the condition gives once it is true."""
    deadline = time.monotonic() + HANGS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.usefixtures("home", "not_under_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_parent_alone_is_passed_on_and_no_further_child_started(monkeypatch, number):
    before = [signal.getsignal(number) for number in HANDLED]
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", TO_PARENT))
    first, second = (Child(load("nfm-digits"), name, options=(str(int(number)),)) for name in ("a", "b"))
    assert run_children([first, second], lambda text: None, keep_going=True) == {first: 7}
    assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.fixture
def family(home, tmp_path):
    """A parent that leads a group, as on a terminal, with a child; and what the child has said: `(process, lines)`."""
    said = tmp_path / "said"
    environment = {**os.environ, "SAID": str(said), "LISTENER": LISTENER, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, start_new_session=True)

    def lines():
        return [int(line) for line in said.read_text().split()] if said.exists() else []

    child = until(lines)[0]
    yield process, lines
    for number in (child, process.pid):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


def test_ctrl_c_on_a_terminal_reaches_a_child_once_and_the_second_signal_ends_it(family):
    process, lines = family
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    until(lambda: lines()[1:])
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
    assert process.wait(HANGS) == 3
    assert lines()[1:] == [signal.SIGINT, signal.SIGTERM]


def state(pid):
    """As `ps` shows it: T is stopped."""
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(") ")[2][0]


def test_ctrl_z_stops_the_child_too_until_the_parent_continues(family):
    process, lines = family
    [child] = lines()
    os.killpg(process.pid, signal.SIGTSTP)
    until(lambda: state(process.pid) == state(child) == "T")
    os.killpg(process.pid, signal.SIGCONT)
    until(lambda: "T" not in (state(process.pid), state(child)))


def test_a_terminal_that_quits_leaves_no_child(family):
    process, _ = family
    os.killpg(process.pid, signal.SIGQUIT)
    assert process.wait(HANGS) != 0  # not before its child


# Ready once it can hear; it counts what it hears in a second after the first signal.
COUNTER = """
import os, signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(0))
open(os.environ["SAID"], "w").close()
while not heard:
    time.sleep(0.01)
end = time.monotonic() + 1
while time.monotonic() < end:
    time.sleep(0.01)
sys.exit(len(heard))
"""


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("moment", ["_start", "_relay"])
def test_a_signal_while_a_child_is_started_reaches_it_once(monkeypatch, tmp_path, moment):
    said = tmp_path / "said"
    monkeypatch.setenv("SAID", str(said))
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", COUNTER))
    original = getattr(children, moment)

    def interrupted(*given, **more):
        result = original(*given, **more)
        until(said.exists)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)  # a second one at once would be one with the first
        return result

    monkeypatch.setattr(children, moment, interrupted)
    first, second = (Child(load("nfm-digits"), name) for name in ("a", "b"))
    assert run_children([first, second], lambda text: None, places=({}, {})) == {first: 1}
