"""A further machine of a run: it lends its ranks to each stage, and leaves the books to the first.

Lock, plan, artifacts and Prefect are the first machine's. This one looks into the same store, starts ranks that meet
the others at the rendezvous for every stage that is not there yet, and waits for what only one process makes.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from flows.session.interrupts import graceful_shutdown
from flows.session.session import Session
from pipeline.engine.dag import Node
from pipeline.engine.elastic import OUTPUT, SPEC, agent
from pipeline.engine.plan import sound
from pipeline.engine.rerun import is_requested
from storage.errors import DamageError, Interrupted

POLL = 1.0  # seconds


def join(session: Session) -> None:
    """Help until every artifact of the recipe is there. Raises Interrupted if asked to stop."""
    with graceful_shutdown(session.stop, session.display.note):
        for node in session.nodes.values():
            while not _there(node, session):
                if session.stop:
                    raise Interrupted(
                        f"Stopped ({session.stop.reason}) while helping with {node.name}. The others go "
                        "on once as many machines as asked for are there again"
                    )
                work = session.store.work(node.name, node.fingerprint)
                if node.stage.parallel and (work / SPEC).exists():
                    _lend(node, work, session)
                time.sleep(POLL)
            session.display.note(f"{node.name}: there")


def _there(node: Node, session: Session) -> bool:
    try:
        return not is_requested(node, session.store) and sound(node, session.store) is not None
    except DamageError:
        return False


def _lend(node: Node, work: Path, session: Session) -> None:
    """This machine's ranks, until the stage's ranks on all machines are done."""
    session.display.note(f"{node.name}: joining at {session.recipe.compute.rendezvous}")
    node_rank = session.recipe.compute.node_rank
    with (
        open(work / f"{OUTPUT}.{node_rank}", "ab") as output,
        agent(work, session.recipe.compute, node.name, output) as process,
    ):
        while process.poll() is None and not session.stop:
            try:
                process.wait(POLL)
            except subprocess.TimeoutExpired:
                continue
