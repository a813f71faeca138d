"""A stage's progress in Prefect's UI: one progress artifact, moved at most every few seconds."""

from __future__ import annotations

import logging
import re
import time

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import temporary_settings

from flows.orchestration.server_watch import IMPATIENT
from flows.session import words
from pipeline.runtime.job import ProgressUpdate

EVERY = 3.0  # seconds between updates; each is a request
PAUSE = 60.0  # seconds of silence after a request that failed: the work matters more than its picture


def artifact_key(recipe: str, stage: str) -> str:
    """What Prefect lists an artifact of a stage under: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{recipe}-{stage}".lower()).strip("-")


class ProgressArtifact:
    """A listener for one stage. It is made with the first report, so that a reused stage has none."""

    def __init__(self, recipe: str, stage: str) -> None:
        self._key = artifact_key(recipe, stage)
        self._id = None
        self._next = 0.0

    def __call__(self, report: ProgressUpdate) -> None:
        now = time.monotonic()
        if now < self._next and report.done < report.total:
            return
        self._next = now + EVERY
        percent = 100 * report.done / report.total if report.total else 0.0
        try:
            with temporary_settings(IMPATIENT):
                self._send(percent, words.moment(report))
        except Exception as error:  # whatever the server's trouble is, the stage goes on
            self._next = now + PAUSE
            logging.getLogger("flowctl").debug("no progress artifact for now: %s", error)

    def _send(self, percent: float, text: str) -> None:
        if self._id is None:
            self._id = create_progress_artifact(percent, key=self._key, description=text)
        else:
            update_progress_artifact(self._id, percent, description=text)
