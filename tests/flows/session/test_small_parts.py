"""Signals, waiting, retries, words and pictures, each by itself."""

import fcntl
import logging
import os
import signal
import threading
import types

import pytest

from flows.session import words
from flows.session.display import Bars, Display, Lines, Logged
from flows.session.interrupts import graceful_shutdown
from flows.session.logs import forward_logs
from flows.session.session import Session
from flows.session.waiting import wait_for
from pipeline.engine.execute import Outcome
from pipeline.recipe.load import load
from pipeline.runtime.job import ProgressUpdate, StopSignal
from storage.errors import Interrupted
from storage.locks import held


class Notes(Display):
    def __init__(self):
        self.notes, self.reports = [], []

    def note(self, text):
        self.notes.append(text)

    def report(self, report):
        self.reports.append(report)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_signal_asks_and_the_second_stops(number, reason):
    stop, told, before = StopSignal(), [], signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), graceful_shutdown(stop, told.append):
        os.kill(os.getpid(), number)
        assert stop.reason == reason and len(told) == 1
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_thread_leaves_signals_alone():
    seen = []

    def work():
        with graceful_shutdown(StopSignal(), print):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


@pytest.fixture
def waiting_for_teacher(home, tiny):
    session = Session.open(load(tiny), display=Notes())
    session.store.prepare()
    node = session.nodes["teacher"]
    return session, node, session.store.lock_path("teacher", node.fingerprint)


def test_waiting_tells_of_the_holder_and_shows_its_progress(waiting_for_teacher):
    session, node, lock = waiting_for_teacher
    work = session.store.work("teacher", node.fingerprint)
    work.mkdir(parents=True)
    (work / "progress.json").write_text(
        '{"stage": "teacher", "pid": 5, "done": 1, "total": 2, "unit": "images", "rate": 1.0, "loss": 3.0}'
    )
    stream = open(lock, "w")  # noqa: SIM115
    fcntl.flock(stream, fcntl.LOCK_EX)
    assert held(lock)
    threading.Timer(0.2, stream.close).start()
    wait_for("process 5 on here", node, session)
    assert session.display.notes == ["teacher: waiting for process 5 on here, which runs it"]
    assert session.display.reports[0].done == 1 and session.display.reports[0].facts["loss"] == 3.0
    assert not held(lock)


def test_waiting_ends_when_the_user_stops(waiting_for_teacher):
    session, node, lock = waiting_for_teacher
    session.stop.request("Ctrl-C")
    with open(lock, "w") as stream, pytest.raises(Interrupted):
        fcntl.flock(stream, fcntl.LOCK_EX)
        wait_for("process 5", node, session)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (41.2, "41 s"),
        (365, "6 min 05 s"),
        (11400, "3 h 10 min"),
        (359_960, "99 h 59 min"),
        (360_000, "4 days 4 h"),
        (1e8, "1,157 days 10 h"),
    ],
)
def test_durations(seconds, said):
    assert words.duration(seconds) == said


def test_sizes_and_moments():
    assert [words.size(n) for n in (0, 999, 1234567, 2.5e13, 999_600)] == ["0 B", "999 B", "1.23 MB", "25 TB", "1 MB"]
    report = ProgressUpdate("teacher", 12800, 64000, "images", 512.0, {"loss": 0.31234, "lr": 1e-3})
    assert words.moment(report) == "12,800 of 64,000 images, 512/s, loss 0.3123, 1 min 40 s left"
    assert words.moment(ProgressUpdate("data", 5, 5, "images", 0.0, {})) == "5 of 5 images"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("kind", [Lines, Logged])
def test_without_a_terminal_progress_is_a_line_a_minute(kind, capsys, caplog, monkeypatch):
    """Reports of an hour, one each second: of the second stage, which takes turns with the first, as often."""
    clock, minutes = Clock(), 60
    monkeypatch.setattr("flows.session.display.time", types.SimpleNamespace(monotonic=clock))
    shown = kind()
    with caplog.at_level(logging.INFO, "flowctl"):
        for second in range(60 * minutes + 1):
            clock.now = float(second)
            for stage in ("student", "reference"):
                shown.begin(stage)  # again, as after a retry or while an artifact is sent
                shown.report(ProgressUpdate(stage, second, 7200, "images", 1068.0, {"loss": 0.092}))
    lines = caplog.messages if kind is Logged else capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith("student")] == [
        f"student {60 * minute * 100 // 7200} %" for minute in range(1, minutes + 1)
    ]
    assert len(lines) == 2 * minutes


def test_a_line_of_progress():
    report = ProgressUpdate("student", 41, 100, "images", 0.25, {"loss": 0.09, "lr": 1e-3})
    assert words.line(report) == "student 41 %, 0.25 images/s, loss 0.09, 3 min 56 s left"
    scored = ProgressUpdate("teacher", 41, 100, "images", 0.0, {"fd": 0.31234, "held_out_bits": 2.5})
    assert words.line(scored) == "teacher 41 %, FD 0.3123, held-out bits 2.5"
    assert words.line(ProgressUpdate("data", 0, 0, "images", 0.0, {})) == "data 0 %"


def test_lines_end_with_the_outcome(capsys):
    shown = Lines()
    shown.begin("teacher")
    shown.report(ProgressUpdate("teacher", 1, 2, "images", 1.0, {}))
    shown.end("teacher", Outcome("run", None, 41.2))
    assert capsys.readouterr().err == "teacher: run … 41 s\n"


def test_a_run_goes_on_where_nobody_reads_its_lines(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("sys.stderr", os.fdopen(writer, "w"))
    shown = Lines()
    for _ in range(2):
        shown.note("teacher 1 %")


def test_bars_take_all_that_a_run_tells(capsys):
    with Bars() as shown:
        shown.begin("teacher")
        shown.report(ProgressUpdate("teacher", 1, 2, "images", 1.0, {"loss": 1.0}))
        shown.note("warning: [bold] is no markup")
        shown.begin("teacher")
        shown.end("teacher", Outcome("run", None, 41.2))
    assert "[bold] is no markup" in capsys.readouterr().err


def test_warnings_of_our_loggers_reach_the_display():
    notes, logger = Notes(), logging.getLogger("pipeline.stages.teacher")
    with forward_logs(notes):
        logger.info("not this")
        logger.warning("too %s", "weak")
    logger.warning("nor this")
    assert notes.notes == ["warning: too weak"]


def test_a_server_that_does_not_answer_is_no_server():
    from flows.orchestration.server import answers

    assert not answers("http://127.0.0.1:1/api") and not answers("nonsense")
