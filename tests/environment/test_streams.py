"""Standard streams that are closed, or that cannot print; terminals that go away; a process without a home.

A whole run without any standard stream is in test_any_environment.
"""

import itertools
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from flows.session.interrupts import graceful_shutdown
from pipeline.runtime.job import StopSignal
from tests.environment.conftest import PROGRAM
from tests.environment.program import ROOT
from tests.shared import HANGS

STREAMS = [closed for count in range(4) for closed in itertools.combinations((0, 1, 2), count)]


@pytest.mark.parametrize("closed", STREAMS, ids=str)
def test_no_file_gets_the_number_of_a_standard_stream(place, closed):
    """After `prepare_process` all three are open, and reading and writing them raises nothing."""
    for number in closed:
        os.set_inheritable(number, True)
    code = (
        f"import os, sys; sys.path.append({str(ROOT)!r})\n"
        "from flows.session.process import prepare_process; prepare_process()\n"
        "numbers = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]\n"
        "print('out'); print('err', file=sys.stderr); sys.stdin.read(); os.write(1, b''); os.write(2, b'')\n"
        "os._exit(min(numbers))"
    )
    redirections = " ".join(f"{number}>&-" for number in closed)
    words = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=place.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode >= 3, done.stderr
    assert done.stderr == ("" if 2 in closed else "err\n")


@pytest.mark.parametrize("words", [(), ("run",), ("results",)], ids=str)
def test_help_goes_to_a_stream_that_knows_ascii_alone(place, words):
    done = place.flowctl(*words, "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "Usage" in done.stdout


def test_a_name_that_is_not_utf_8_can_be_printed(place):
    done = place.python("from flows.session.process import prepare_process; prepare_process(); print('caf\\udce9')")
    assert done.stdout == "caf\\udce9\n", done.stderr


NO_ACCOUNT = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"


@pytest.mark.parametrize(
    ("home", "library", "cache"),
    [
        (None, "torch._inductor.runtime.cache_dir_utils", "torch._inductor.runtime.cache_dir_utils.cache_dir"),
        ("/proc", "matplotlib.font_manager", "matplotlib.get_cachedir"),
    ],
)
def test_a_user_without_account_and_home_can_run(place, home, library, cache):
    """As in `docker run --user 12345`: libraries keep their caches in the store. Prefect is in test_any_environment."""
    (place.folder / "cwd" / "sitecustomize.py").write_text(NO_ACCOUNT)
    place.store.mkdir(parents=True)
    before = place.outside()
    code = (
        "from flows.session.process import prepare_process; prepare_process()\n"
        "import getpass; getpass.getuser()\n"
        f"import {library}; print({cache}())"
    )
    done = place.python(code, HOME=home, PYTHONPATH=str(place.folder / "cwd"), PYTHONDONTWRITEBYTECODE="1")
    assert done.stdout.startswith(f"{place.store}/cache/"), done.stderr
    assert place.outside() == before


@pytest.mark.parametrize("given", ["", "elsewhere"])
@pytest.mark.parametrize("store", ["store", "absent", "recipe/store"])  # the last cannot be created: a file is there
def test_caches_can_be_written_wherever_the_store_is(place, store, given):
    """A variable that is set to nothing names no place. No store is created; what is in none is removed at the end."""
    (place.folder / "recipe").touch()
    place.store.mkdir(parents=True)
    before = place.outside()
    code = (
        "import os; from pathlib import Path; from flows.session.process import CACHES, prepare_process\n"
        "prepare_process()\n"
        "for name in CACHES: Path(os.environ[name]).mkdir(parents=True); print(os.environ[name])"
    )
    variables = {"MPLCONFIGDIR": given, "TORCHINDUCTOR_CACHE_DIR": "", "FLOWCTL_HOME": str(place.folder / store)}
    done = place.python(code, **variables, PYTHONDONTWRITEBYTECODE="1")
    matplotlib, *others = done.stdout.splitlines()
    folder = place.store / "cache" if store == "store" else place.folder / "tmp"
    assert len(others) == 2 and all(other.startswith(f"{folder}/") for other in others), done.stderr
    assert matplotlib == given or not given
    after = {path: time for path, time in place.outside().items() if not path.endswith("/elsewhere")}
    assert after == before


@pytest.mark.parametrize("home", ["~no-such-user/store", "/gone", f"/tmp/{'x' * 300}"])
def test_no_place_for_the_store_is_one_line(place, home):
    leave = "import shutil, os; shutil.rmtree(os.getcwd())\n" if home == "/gone" else ""
    done = place.python(f"{leave}sys.argv = ['flowctl', 'status']; flowctl.main()", FLOWCTL_HOME=home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list", "--help"), ("list",)], ids=str)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(place, words, unbuffered):
    place.store.mkdir()
    command = f'exec "{sys.executable}" -P "$@" >/dev/full'
    done = subprocess.run(
        ["sh", "-c", command, "sh", str(PROGRAM), *words],
        env=place.environment | {"PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")


HANGUP = """
import os, sys, time
from flows.session.display import Lines
from flows.session.interrupts import graceful_shutdown
from pipeline.runtime.job import StopSignal
stop, lines = StopSignal(), Lines()
with graceful_shutdown(stop, lines.note):
    lines.note("ready")
    while not stop:
        time.sleep(0.01)
    for _ in range(3):  # as a stage that saves
        time.sleep(0.05)
        lines.note("saving")
        print("saving")
open(sys.argv[1], "w").write(stop.reason)
"""


def test_a_terminal_that_is_closed_asks_to_save(tmp_path):
    """A session on a terminal of its own, whose other end goes away, as when ssh is cut."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, also after exec
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", HANGUP, str(tmp_path / "reason")])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "reason").read_text().startswith("SIGHUP")


def test_hangups_may_come_twice_and_are_ignored_under_nohup():
    """The kernel sends one and the shell another."""
    stop, notes = StopSignal(), []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with graceful_shutdown(stop, notes.append):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0)
        assert stop.reason.startswith("SIGHUP") and len(notes) == 1
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with graceful_shutdown(stop := StopSignal(), notes.append):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


# Ctrl-C while the main thread waits for a reader of its lines: Python writes no line in the middle of another.
BLOCKED = """
import os, signal, sys, threading, time
from flows.session.display import Lines
from flows.session.interrupts import graceful_shutdown
from pipeline.runtime.job import StopSignal
stop, lines = StopSignal(), Lines()
def interrupt():
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
with graceful_shutdown(stop, lines.note):
    while not stop:
        lines.note("x" * 10_000)
print(stop.reason)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ctrl_c_while_a_line_waits_for_its_reader_asks_to_save(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(3)  # the pipe is full, and the signal has come
    said, errors = process.communicate(timeout=HANGS)
    assert (process.returncode, said) == (0, b"Ctrl-C\n"), errors[-2000:]
