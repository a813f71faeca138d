"""Our loggers: records from INFO up go to Prefect's UI and the run's journal, warnings to the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flows.session.display import Display
from flows.session.journal import Journal
from flows.session.settings import LOGGERS


class _Notes(logging.Handler):
    """Shows a warning as a note on the display, so that it does not break a progress bar."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.note(f"{record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def forward_logs(display: Display | None = None, journal: Journal | None = None) -> Iterator[None]:
    """Log from INFO up inside the block: Prefect attaches its handler to our loggers, but the root's level drops INFO.

    Warnings are also shown as notes on the display. Pass none if its notes are log records themselves.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS.split(",")]
    levels = [logger.level for logger in loggers]
    handlers = [_Notes(display)] * (display is not None) + [journal] * (journal is not None)
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            for handler in handlers:
                logger.removeHandler(handler)
