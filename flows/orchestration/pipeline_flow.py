"""The pipeline in Prefect: a flow for a recipe, a task for each of its stages, in the order of the DAG.

    data ──► teacher ──► bank ──► student ──► pairs ──► onestep ──► evaluation ──► report

Prefect gives states, logs, progress, retries and the graph. The artifact store alone decides what to reuse, so Prefect
caches nothing. `flows/session/settings.py` sets Prefect up before this module is imported.
"""

from __future__ import annotations

import errno
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.orchestration import deployed, ui_artifacts
from flows.orchestration.server_watch import watched
from flows.session import session as sessions
from flows.session import words
from flows.session.interrupts import graceful_shutdown
from flows.session.recording import run_stage
from flows.session.remotes import Unsent
from flows.session.session import Session
from storage.errors import FlowctlError, Interrupted
from storage.required import required

STATE_NAMES = {"reused": "Reused", "fetched": "Fetched", "resumed": "Resumed", "run": "Completed"}
RETRY_DELAYS = [2.0, 10.0]  # seconds before each further attempt at a stage
TRANSIENT = {  # errors of the network and of network disks, which can pass
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}


def flow_run_name() -> str:
    """The name of the current flow run."""
    return ui_artifacts.run_name(flow_run.parameters["recipe"])


def seed_tag(recipe: dict[str, Any]) -> str:
    """The tag by which the UI filters runs of one seed."""
    return f"seed {recipe.get('seed', 0)}"


@flow(name="flowctl", flow_run_name=flow_run_name, persist_result=False, validate_parameters=False)
def pipeline(recipe: dict[str, Any], force: list[str] | None = None, until: str | None = None) -> State:
    """Run every stage of the recipe that has no result yet."""
    with deployed.session_of(flow_run.id, recipe, force or (), until) as session:
        return _run(session)


def _run(session: Session) -> State:
    """Run all stages up to the first that fails; the resulting state of the flow run."""
    states: dict[str, State] = {}
    planned = {step["stage"]: step["action"] for step in session.running_record.facts["plan"]}
    tell = session.display.note
    with (
        sessions.current(session),
        graceful_shutdown(session.stop, tell, insistent=not session.deployed),
        watched(flow_run.id, session.stop, tell) as server,
    ):
        for node in session.nodes.values():
            before = [states[role] for role in node.inputs]
            inputs = {role: source.fingerprint for role, source in node.inputs.items()}
            # The UI colours a state by its type alone: the name therefore shows reuse too.
            name = f"{node.name} (reused)" if planned[node.name] == "reuse" else node.name
            stage = run.with_options(name=node.name, task_run_name=name)
            state = stage(node.name, node.fingerprint, inputs, wait_for=before, return_state=True)
            states[node.name] = state
            server.wait_if_lost()
            if not state.is_completed():
                break
        ui_artifacts.create(session, {name: str(state.name) for name, state in states.items()})
    if state.is_completed() and session.unsent:
        return Failed(message=str(Unsent(session)))
    if state.is_completed():
        reused = all(outcome.action == "reused" for outcome in session.outcomes.values())
        return Completed(name="Reused" if reused else "Completed", message=session.summary())
    message = f"Stage {node.name}: {state.message}"
    if state.is_cancelled() and session.deployed:
        deployed.hand_back(flow_run.id, message)
    return (Cancelled if state.is_cancelled() else Failed)(message=message)


def transient(error: BaseException) -> bool:
    """Whether a further attempt can help. It cannot after a full disk, a missing file or wrong input."""
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in TRANSIENT
    )


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=lambda task, task_run, state: transient(state.result(raise_on_failure=False)),
)
def run(stage: str, fingerprint: str, inputs: dict[str, str]) -> State:
    """Run one stage of the current session; the state's name says how it got its artifact, which is in the store."""
    session = required(sessions.find(), "the session of the run")
    try:
        progress = ui_artifacts.ProgressArtifact(session, stage)
        outcome = run_stage(session, session.nodes[stage], (progress,))
    except Interrupted as interrupted:
        return Cancelled(message=str(interrupted))
    except Exception as error:
        if not isinstance(error, FlowctlError):  # Prefect shows only its message
            get_run_logger().error("Stage %s failed", stage, exc_info=True)
        raise
    message = f"{outcome.action} in {words.duration(outcome.seconds)}: {outcome.artifact.root}"
    get_run_logger().info(message)
    return Completed(name=STATE_NAMES[outcome.action], message=message)
