"""Ctrl-C and SIGTERM: the first asks the stage to save and leave, the second leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.runtime.job import StopSignal

REASONS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextmanager
def graceful_shutdown(stop: StopSignal, tell: Callable[[str], None], insistent: bool = True) -> Iterator[None]:
    """Handle both signals inside the block; what handled them before does so again after it.

    To be entered inside the flow, for Prefect installs a SIGTERM handler of its own around it. A worker may send
    SIGTERM twice for one cancellation; under one, where `insistent` is false, further signals say nothing new.
    """
    heard = False

    def handle(number: int, frame: Any) -> None:
        nonlocal heard
        if heard:
            if insistent:
                raise KeyboardInterrupt
            return
        heard = True
        if not stop:  # the UI may have asked before
            stop.request(REASONS[signal.Signals(number)])
        tell(
            f"{stop.reason}: saving at the next possible point, then stopping"
            + (". Once more stops at once" if insistent else "")
        )

    if threading.current_thread() is not threading.main_thread():  # a worker's thread gets no signals
        yield
        return
    before = {number: signal.signal(number, handle) for number in REASONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
