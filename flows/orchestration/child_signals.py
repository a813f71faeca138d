"""Signals to a process that waits for children: each reaches a child once, through this process alone.

A child leads its own process group. In the group of this process a terminal, or `timeout`, would send it each signal a
second time, and a second one ends a run at once instead of saving it. So what a terminal does with its group, Ctrl-C,
Ctrl-\\ and Ctrl-Z, is passed on here too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from flows.session.interrupts import asking_to_stop


@dataclass
class Heard:
    """What signals have asked for, and the process group of children to be started: 0 is their own; None is that of
    this process, where it hears no signals that it could pass on. `reached` are the children that got one."""

    group: int | None
    stop: bool = False
    reached: set[subprocess.Popen] = field(default_factory=set)


@contextmanager
def passing_on(running: Callable[[], Iterable[subprocess.Popen]]) -> Iterator[Heard]:
    """Pass signals on to the running children while the block lasts. The first asks a run to save and stop, the second
    ends it at once."""
    heard = Heard(0 if threading.current_thread() is threading.main_thread() else None)  # Python hears them there alone

    def pass_on(number: int, frame: Any) -> None:
        heard.stop = True
        for process in running():
            heard.reached.add(process)
            process.send_signal(number)

    def suspend(number: int, frame: Any) -> None:
        _send_to_groups(running(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _send_to_groups(running(), signal.SIGCONT)  # once the shell has continued this process

    def quit_(number: int, frame: Any) -> None:
        heard.stop = True
        heard.reached.update(running())
        _send_to_groups(running(), signal.SIGQUIT)

    before: dict[signal.Signals, Any] = {}
    if heard.group is not None:
        before = {number: signal.signal(number, pass_on) for number in asking_to_stop()}
        for number, handler in ((signal.SIGTSTP, suspend), (signal.SIGQUIT, quit_)):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send_to_groups(leaders: Iterable[subprocess.Popen], number: int) -> None:
    """To the children and to the processes that they have started, as a terminal does."""
    for leader in leaders:
        with suppress(ProcessLookupError):  # the signal came while its end was read
            if leader.poll() is None:  # else its number may be another's
                os.killpg(leader.pid, number)
