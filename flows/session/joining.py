"""A further machine of a run: it adds its ranks to each stage.

The first machine plans, locks, publishes and talks to Prefect. This one looks into the same store, starts ranks that
meet the others at the rendezvous for each stage in several processes, and waits for the other stages. Its GPUs are
locked as the first machine's are.
"""

from __future__ import annotations

import math
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from flows.session.gpu_lock import gpus_locked
from flows.session.interrupts import graceful_shutdown
from flows.session.session import Session
from pipeline.engine.dag import Node
from pipeline.engine.elastic import LEAVE_SECONDS, OUTPUT, SPEC, agent
from pipeline.engine.rerun import reusable
from pipeline.runtime.job import STOP
from storage.errors import Interrupted

POLL = 1.0  # seconds
ALONE_SECONDS = 10.0  # after a stop signal, until the first machine must have had one too


def join(session: Session) -> None:
    """Take part until every artifact of the recipe is in the store. Raises Interrupted on a stop signal."""
    with graceful_shutdown(session.stop, session.display.note):
        for node in session.nodes.values():
            while reusable(node, session.store) is None:
                if session.stop:
                    raise Interrupted(
                        f"Stopped ({session.stop.reason}) while taking part in {node.name}. The other machines "
                        "continue once a replacement has joined"
                    )
                work = session.store.work(node.name, node.fingerprint)
                if node.stage.parallel and (work / SPEC).exists():
                    with gpus_locked(node, session):
                        if (work / SPEC).exists():  # the stage may have ended while its GPUs were waited for
                            _run_ranks(node, work, session)
                time.sleep(POLL)
            session.display.note(f"{node.name}: finished")


def _run_ranks(node: Node, work: Path, session: Session) -> None:
    """This machine's ranks, until the stage's ranks on all machines are done."""
    compute = session.recipe.compute
    session.display.note(f"{node.name}: joining at {compute.rendezvous}")
    with (
        open(work / f"{OUTPUT}.{compute.node_rank}", "ab") as output,
        agent(work, compute, node.name, output) as process,
    ):
        stopped, gone = math.inf, 0.0
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
            if not (work / SPEC).exists():  # the first machine's ranks have ended, and these end now
                gone += POLL
                if gone > LEAVE_SECONDS:
                    break
            if session.stop:  # where the first machine stops too, the ranks save together and leave by themselves
                stopped = min(stopped, time.monotonic())
                if time.monotonic() - stopped > (LEAVE_SECONDS if (work / STOP).exists() else ALONE_SECONDS):
                    break
