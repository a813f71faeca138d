"""Finished artifacts are sent to the run's remote; what could not be sent is reported at the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from flows.session import words
from flows.session.session import Session
from pipeline.engine.remote import Transfer
from pipeline.runtime.job import ProgressUpdate
from storage.artifact import Artifact
from storage.errors import FlowctlError, Interrupted, StageFailed
from storage.required import required


def send(session: Session, artifact: Artifact, replace: bool) -> None:
    """Upload a finished artifact if the remote lacks it, has an older one, or if `replace` says so.

    A failed upload is noted in `session.unsent` and the run continues: the artifact is safe in the store. Raises
    Interrupted on a stop signal.
    """
    if session.remote is None:
        return
    transfer = Transfer(artifact, "sent", _on_display(session, artifact.stage), session.stop)
    try:
        sent = session.remote.send(artifact, replace=replace, moment=transfer)
    except Interrupted:
        raise
    except (FlowctlError, OSError) as error:
        session.unsent[artifact.stage] = str(error)
        session.display.note(f"{artifact.stage}: not sent: {error}")
    else:
        session.unsent.pop(artifact.stage, None)
        if sent is not None:
            session.display.note(f"{artifact.stage}: sent {words.size(sent)} to {session.remote.url}")


class Unsent(StageFailed):
    """All stages are finished, but some artifacts could not be sent to the remote."""

    retryable = True

    def __init__(self, session: Session) -> None:
        why = next(iter(session.unsent.values()))
        super().__init__(
            f"All stages are finished, but these could not be sent to {required(session.remote, 'the remote').url}: "
            f"{', '.join(session.unsent)} ({why}). They are safe in {session.store.home}"
        )


def _on_display(session: Session, stage: str) -> Callable[[int, int, str], None]:
    """Show transferred bytes on the stage's bar."""
    began = time.monotonic()

    def report(done: int, total: int, unit: str) -> None:
        seconds = time.monotonic() - began
        session.display.begin(stage)
        session.display.report(ProgressUpdate(stage, done, total, unit, done / seconds if seconds else 0.0, {}))

    return report
