"""Wait while another process runs a stage that we need: show its progress, and react to a stop signal."""

from __future__ import annotations

import time

from flows.session.session import Session
from pipeline.engine.dag import Node
from pipeline.runtime.job import read_progress
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
