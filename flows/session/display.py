"""The display of a run, on stderr: bars on a terminal, elsewhere a line a minute and a stage; a log in a worker."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from flows.session import words
from pipeline.engine.execute import Outcome
from pipeline.runtime.job import ProgressUpdate

if TYPE_CHECKING:
    from rich.progress import TaskID


class Display:
    """Shows nothing; the base of the others."""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, stage: str) -> None:
        """A stage starts; it may be reused."""

    def report(self, report: ProgressUpdate) -> None:
        """Progress of a stage."""

    def end(self, stage: str, outcome: Outcome) -> None:
        """A stage has its artifact."""

    def note(self, text: str) -> None:
        """Any other message."""


class Minutely(Display):
    """A line of progress per stage and minute; the base of displays without a terminal."""

    INTERVAL = 60.0  # seconds

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}  # time of a stage's last line, at first of its first report

    def report(self, report: ProgressUpdate) -> None:
        now = time.monotonic()
        if now - self._shown.setdefault(report.stage, now) >= self.INTERVAL:
            self._shown[report.stage] = now
            self.note(words.line(report))


class Logged(Minutely):
    """Messages go to the run's log: a worker's process has no terminal."""

    def note(self, text: str) -> None:
        logging.getLogger("flowctl").info(text)


def say(text: str) -> None:
    """A line on stderr, if that can be written to."""
    try:
        print(f"{text}\n", end="", file=sys.stderr, flush=True)  # one write: other threads have lines to say too
    except OSError:  # the reader of a pipe is gone, or a disk is full: no reason to stop, the run has its own log
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


class Lines(Minutely):
    """For logs and pipes: also a line when a stage ends."""

    def end(self, stage: str, outcome: Outcome) -> None:
        self.note(f"{stage}: {outcome.action} … {words.duration(outcome.seconds)}")

    def note(self, text: str) -> None:
        say(text)


class Bars(Display):
    """A bar per stage with its rate, time left and loss."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        if stage not in self._bars:  # a retry continues its bar
            self._bars[stage] = self._progress.add_task(stage, total=None, facts="")

    def report(self, report: ProgressUpdate) -> None:
        self._progress.update(
            self._bars[report.stage], completed=report.done, total=report.total, facts=words.moment(report)
        )

    def end(self, stage: str, outcome: Outcome) -> None:
        self._progress.update(self._bars[stage], completed=1, total=1, facts=outcome.action)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def display() -> Display:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()
