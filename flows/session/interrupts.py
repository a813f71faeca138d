"""Ctrl-C, SIGTERM and SIGHUP: the first asks the stage to save and leave, the second stops at once."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.runtime.job import StopSignal

REASONS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP, the terminal is closed"}


@contextmanager
def graceful_shutdown(stop: StopSignal, tell: Callable[[str], None], insistent: bool = True) -> Iterator[None]:
    """Handle the signals inside the block, and restore their handlers after it.

    Enter the block inside the flow, because Prefect installs a SIGTERM handler around it. A worker may send SIGTERM
    twice for one cancellation; with `insistent` false, further signals have no effect.
    """
    stopping = False

    def handle(number: int, frame: Any) -> None:
        nonlocal stopping
        if stopping:
            if insistent and number != signal.SIGHUP:  # which the kernel and a shell send, each of them
                raise KeyboardInterrupt
            return
        stopping = True
        if number == signal.SIGHUP:
            _leave_terminal()
        if not stop:  # the UI may have asked before
            stop.request(REASONS[signal.Signals(number)])
        with suppress(RuntimeError):  # the signal came in the middle of another line, and Python writes none in one
            tell(
                f"{stop.reason}: saving at the next possible point, then stopping"
                + (". Once more stops at once" if insistent else "")
            )

    if threading.current_thread() is not threading.main_thread():  # a worker's thread gets no signals
        yield
        return
    before = {number: signal.signal(number, handle) for number in asking_to_stop()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asking_to_stop() -> list[signal.Signals]:
    """The signals to handle. SIGHUP stays ignored where it is, as under `nohup`."""
    return [number for number in REASONS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def _leave_terminal() -> None:
    """Let output that a closed terminal would take go nowhere: each write to it would raise an error in the stage."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return  # the signal came from somewhere else, and the terminal is open
    except OSError:
        pass
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        if _is_character_device(stream):
            os.dup2(null, stream)
    os.close(null)


def _is_character_device(descriptor: int) -> bool:
    """Whether it is a terminal, open or closed: of a closed one `isatty` is false."""
    try:
        return stat.S_ISCHR(os.fstat(descriptor).st_mode)
    except OSError:
        return False
