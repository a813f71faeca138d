"""The log of a run as JSON lines, `<home>/runs/<id>.jsonl`: log records, and a span for each stage.

    {"time": …, "event": "begin", "stage": "teacher"}
    {"time": …, "event": "log", "stage": "teacher", "level": "INFO", "logger": "pipeline.training", "message": …}
    {"time": …, "event": "end", "stage": "teacher", "seconds": 81.2, "outcome": "resumed"}

Times are seconds since 1970. A span without an end belongs to a process that was killed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.errors import Interrupted


class Journal(logging.Handler):
    """Appends lines to a file. Errors of the disk are ignored: a log must not stop a run."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self._stage: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        self._write(
            time=record.created,
            event="log",
            stage=self._stage,
            level=record.levelname,
            logger=record.name,
            message=message,
        )

    @contextmanager
    def span(self, stage: str) -> Iterator[dict[str, Any]]:
        """The time of a stage. The block's entries in the yielded dict, such as the outcome, go into the last line."""
        began, facts = time.monotonic(), {}
        self._stage = stage
        self._write(time=time.time(), event="begin", stage=stage)
        try:
            yield facts
        except BaseException as error:
            outcome = "stopped" if isinstance(error, Interrupted) else "failed"
            facts = {"outcome": outcome, "error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            self._write(time=time.time(), event="end", stage=stage, seconds=time.monotonic() - began, **facts)
            self._stage = None

    def _write(self, **line: Any) -> None:
        with suppress(OSError), open(self.path, "a") as stream:
            stream.write(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n")
