"""The display of a run: bars on a terminal, one line per stage elsewhere, both on stderr; the log in a worker."""

from __future__ import annotations

import logging
import sys
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


class Logged(Display):
    """Messages go to the run's log: a worker's process has no terminal."""

    def note(self, text: str) -> None:
        logging.getLogger("flowctl").info(text)


class Lines(Display):
    """One line per stage, for logs and pipes."""

    def end(self, stage: str, outcome: Outcome) -> None:
        self.note(f"{stage}: {outcome.action} … {words.duration(outcome.seconds)}")

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


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
