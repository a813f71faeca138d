"""Wait while another process runs a stage that we need: show its progress, and react to a stop signal."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flows.session.session import Session
from pipeline.engine.dag import Node
from pipeline.runtime.job import PROGRESS, ProgressUpdate
from storage.errors import Interrupted
from storage.locks import held

INTERVAL = 0.5  # seconds


def wait_for(holder: str, node: Node, session: Session) -> None:
    """Return once the node's lock is free. Raises Interrupted on a stop signal.

    Another process can take the lock before the caller does; the caller then waits again, for the next holder.
    """
    lock = session.store.lock_path(node.name, node.fingerprint)
    with session.waiting(node.name, f"{holder}, which runs it"):
        while held(lock):
            if session.stop:
                raise Interrupted(f"Stopped ({session.stop.reason}) while waiting for {holder} to run {node.name}")
            report = read_progress(session.store.work(node.name, node.fingerprint))
            if report is not None:
                session.display.report(report)
            time.sleep(INTERVAL)


def read_progress(work: Path) -> ProgressUpdate | None:
    """The last progress of the process that works in `work`."""
    try:
        facts = json.loads((work / PROGRESS).read_bytes())
        fields = {name: facts.pop(name) for name in ("stage", "done", "total", "unit", "rate")}
        return ProgressUpdate(**fields, facts=facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
