"""While another process makes the artifact that we need: say so, show its progress, and still hear Ctrl-C."""

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
    """Return once nobody holds the node's lock. Raises Interrupted where the user does not want to wait.

    The lock may be gone again when one tries to take it: then this is called again, with the next holder.
    """
    lock = session.store.lock_path(node.name, node.fingerprint)
    session.display.note(f"{node.name}: waiting for {holder}, which is making it")
    while True:
        if session.stop:
            raise Interrupted(f"Stopped ({session.stop.reason}) while waiting for {holder} to make {node.name}")
        if not held(lock):
            return
        report = read_progress(session.store.work(node.name, node.fingerprint))
        if report is not None:
            session.display.report(report)
        time.sleep(INTERVAL)


def read_progress(work: Path) -> ProgressUpdate | None:
    """What the process that works in `work` last told about itself."""
    try:
        facts = json.loads((work / PROGRESS).read_bytes())
        known = {name: facts.pop(name) for name in ("stage", "done", "total", "unit", "rate")}
        return ProgressUpdate(**known, facts=facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
