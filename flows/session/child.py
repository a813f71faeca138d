"""`flowctl run` in a child process: Prefect is configured once per process, and a run sets torch up for itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import flowctl
from storage.errors import StageFailed

PROGRAM = (sys.executable, flowctl.__file__)  # by file: the current directory may hold another package `flows`


class ChildFailed(StageFailed):
    """A `flowctl run` in a child process failed or was stopped. It has printed why on stderr."""

    retryable = True

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}` ended with exit code {code}. Finished stages are stored")
        self.code = code


def run_child(words: Sequence[str]) -> int:
    """The exit code of `flowctl` with these words in a child process.

    The terminal sends Ctrl-C to the child too; SIGTERM is forwarded. In both cases this process waits until the child
    has saved. The child's stdout goes to stderr, because stdout is for the caller.
    """
    child: subprocess.Popen | None = None

    def forward(number: int, frame: object) -> None:
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    # Python hears signals in the main thread alone.
    heard = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        child = subprocess.Popen([*PROGRAM, *words], stdout=2)
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
