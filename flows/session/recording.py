"""A run on record, from its plan to its end, and its stages in this process, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flows.session import forecasts
from flows.session.display import Display
from flows.session.gpu_lock import with_gpu_lock
from flows.session.logs import forward_logs
from flows.session.remotes import Unsent, send
from flows.session.runs import RunRecord, ended_well, latest
from flows.session.session import Session
from flows.session.trackers import following
from pipeline.engine.dag import Node
from pipeline.engine.execute import Outcome, execute
from pipeline.engine.plan import Step, outline
from pipeline.engine.rerun import pending
from pipeline.engine.stage_errors import failure
from pipeline.runtime.job import Listener
from storage.artifact import Artifact
from storage.errors import DamageError, Interrupted, StageFailed
from storage.store import Store


@contextmanager
def recording(
    session: Session, steps: Sequence[Step], server: str | None = None, command: str = "run"
) -> Iterator[RunRecord]:
    """Record a run while the block lasts: its plan, its log, and in one line how it ended."""
    recipe = session.recipe.model_dump(mode="json")
    times = {} if session.rates else forecasts.stage_times_if_known(session, steps)
    entries = forecasts.with_times(outline(list(steps)), times)
    reruns = pending(session.nodes.values(), session.store)
    session.record = record = RunRecord(session.store.home, recipe, entries, server, command, reruns)
    ending = "stopped at once"
    try:
        with session.display, forward_logs(None if session.deployed else session.display, record.journal):
            yield record
        ending = _ending(session, session.error)
    except BaseException as error:
        ending = _ending(session, session.error or error)
        raise
    finally:
        record.end(ending)


def record_reused(session: Session, steps: Sequence[Step]) -> None:
    """Record a run that has nothing to do, so that its name is that of a run; not if its latest one ended well."""
    recipe = session.recipe.model_dump(mode="json")
    last = latest(session.store.home).get(session.recipe.name)
    if last is None or last["recipe"] != recipe or not ended_well(last):
        quiet = replace(session, display=Display())
        with recording(quiet, steps):
            run_stages(quiet)


def _ending(session: Session, error: BaseException | None) -> str:
    if error is None:
        return session.summary()
    if isinstance(error, Interrupted):
        return f"stopped: {error}"
    return f"failed: {error}" if isinstance(error, Exception) else "stopped at once"


def run_stages(session: Session) -> dict[str, Artifact]:
    """Run every stage of the session in this process, without Prefect; the artifacts by stage. Needs a record.

    Raises FlowctlError at the first stage that fails, Unsent at the end if an artifact could not be sent.
    """
    for name, node in session.nodes.items():
        try:
            run_stage(session, node)
        except Exception as error:
            raise failure(name, error) from error
    if session.unsent:
        raise Unsent(session)
    return {name: outcome.artifact for name, outcome in session.outcomes.items()}


def run_stage(session: Session, node: Node, listeners: tuple[Listener, ...] = ()) -> Outcome:
    """Reuse, fetch, resume or run one stage under the locks of its GPUs, and send its artifact to the remote.

    Raises whatever the stage raises, which then is `session.error`; Interrupted on a stop signal.
    """
    display, record = session.display, session.running_record
    display.begin(node.name)
    offered = any(step["stage"] == node.name and step["action"] == "fetch" for step in record.facts["plan"])
    try:
        if session.stop:
            raise Interrupted(f"Stopped ({session.stop.reason}) before stage {node.name}")
        with record.journal.span(node.name) as facts, following(node, session) as report:
            outcome = with_gpu_lock(
                node,
                session,
                lambda waiting: execute(
                    node,
                    _inputs(node, session),
                    session.store,
                    session.recipe.compute,
                    listeners=(display.report, *listeners),
                    stop=session.stop,
                    waiting=waiting,
                    remote=session.remote,
                    offered=offered,
                ),
                fetched=offered,
            )
            facts.update(outcome=outcome.action, artifact=outcome.artifact.root.name)
            report(outcome)
        display.end(node.name, outcome)
        send(session, outcome.artifact, replace=outcome.action in ("run", "resumed"))
        if node.name == "data":
            forecasts.complete(session, outcome.artifact.metrics)
    except Exception as error:
        session.error = error
        raise
    session.error = None  # of an earlier attempt
    session.outcomes[node.name] = outcome
    forecasts.learn(session, node, outcome)
    return outcome


def _inputs(node: Node, session: Session) -> dict[str, Artifact]:
    """The artifacts that the node reads. They are in the store, because their stages have just ended."""
    return {role: _input(role, source, session.store) for role, source in node.inputs.items()}


def _input(role: str, source: Node, store: Store) -> Artifact:
    """Looked for twice: a process that replaces it (--force) takes the old one away a moment before."""
    for wait in (0.1, 0.0):
        try:
            if (artifact := store.find(role, source.fingerprint)) is not None:
                return artifact
        except DamageError:
            if not wait:
                raise
        time.sleep(wait)
    raise StageFailed(
        f"The artifact of stage {role} vanished from {store.home} during the run. "
        "Check what removes files there, and run again"
    )
