"""A run and its remote: what is finished is sent there, and what could not be is told at the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from flows.session import words
from flows.session.interrupts import graceful_shutdown
from flows.session.session import Session
from flows.session.waiting import wait_for
from pipeline.engine.dag import Node
from pipeline.engine.execute import execute
from pipeline.engine.plan import Step
from pipeline.engine.remote import Moments
from pipeline.runtime.job import ProgressUpdate
from storage.artifact import Artifact
from storage.errors import FlowctlError, Interrupted, StageFailed


def send(session: Session, artifact: Artifact, made: bool) -> None:
    """Upload a finished artifact if the remote does not have it; one that was `made` here replaces another there, and
    so does one that an earlier run or a repair made after that, and could not send.

    What cannot be sent is noted, and the run goes on: the artifact is safe in the store. Raises Interrupted if asked to
    stop.
    """
    if session.remote is None:
        return
    moments = Moments(artifact, "sent", _shown(session, artifact.stage), session.stop)
    try:
        sent = session.remote.send(artifact, replace=made, moment=moments)
    except Interrupted:
        raise
    except (FlowctlError, OSError) as error:
        session.unsent[artifact.stage] = str(error)
        session.display.note(f"{artifact.stage}: not sent: {error}")
    else:
        session.unsent.pop(artifact.stage, None)
        if sent is not None:
            session.display.note(f"{artifact.stage}: sent {words.size(sent)} to {session.remote.url}")


def move_all(session: Session, steps: list[Step]) -> str:
    """A run with nothing to make: fetch what the store lacks, send what the remote does; what was done, in words.

    Raises FlowctlError where an artifact cannot be fetched, StageFailed at the end where one could not be sent.
    """
    with graceful_shutdown(session.stop, session.display.note):
        for step in steps:
            if step.action == "fetch":
                _fetch(session, step.node)
            else:
                send(session, step.artifact, made=False)
    if session.unsent:
        raise StageFailed(unsent(session))
    actions = [step.action for step in steps]
    return f"{actions.count('fetch')} fetched, {actions.count('reuse')} reused"


def _fetch(session: Session, node: Node) -> None:
    """As a stage that is run: under its lock. It would be run if the remote had lost it since it was planned."""
    session.display.begin(node.name)
    inputs = {role: session.store.find(role, source.fingerprint) for role, source in node.inputs.items()}
    outcome = execute(
        node,
        inputs,
        session.store,
        session.recipe.compute,
        listeners=(session.display.report,),
        stop=session.stop,
        waiting=lambda holder: wait_for(holder, node, session),
        remote=session.remote,
        offered=True,
    )
    session.display.end(node.name, outcome)


def unsent(session: Session) -> str:
    """What could not be sent, why, and what to do."""
    why = next(iter(session.unsent.values()))
    return (
        f"Everything is made, but not everything is at {session.remote.url}: {', '.join(session.unsent)} "
        f"({why}). Nothing is lost, it is in {session.store.home}: run the same command again to send it"
    )


def _shown(session: Session, stage: str) -> Callable[[int, int, str], None]:
    """Show bytes on the stage's bar."""
    began = time.monotonic()

    def report(done: int, total: int, unit: str) -> None:
        seconds = time.monotonic() - began
        session.display.begin(stage)
        session.display.report(ProgressUpdate(stage, done, total, unit, done / seconds if seconds else 0.0, {}))

    return report
