"""The pipeline as Prefect sees it: one flow for a recipe, one task for each of its stages, in the order of the DAG.

    data ──► teacher ──► couplings ──► student ──► pairs ──► onestep ──► evaluation ──► report

Prefect gives states, logs, progress, retries and the graph. Whether a stage is reused is decided by our store alone,
so nothing is cached here. Settings of Prefect come from flows/session/settings.py, before this module is imported.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.orchestration import deployed, gpus
from flows.orchestration.prefect_progress import ProgressArtifact, artifact_key
from flows.orchestration.retries import ATTEMPTS, BACKOFF, may_retry
from flows.orchestration.server_watch import watched
from flows.session import remotes, words
from flows.session import session as sessions
from flows.session.interrupts import graceful_shutdown
from flows.session.session import Session
from pipeline.engine import rerun
from pipeline.engine.dag import Node
from pipeline.engine.execute import execute
from storage.artifact import Artifact
from storage.errors import FlowctlError, Interrupted, StageFailed

STATE_NAMES = {"reused": "Reused", "fetched": "Fetched", "resumed": "Resumed", "run": "Completed"}


@flow(name="flowctl", flow_run_name="{recipe[name]}", persist_result=False, validate_parameters=False)
def pipeline(recipe: dict[str, Any], force: list[str] | None = None, until: str | None = None) -> State:
    """Make every artifact of the recipe that the store does not have yet."""
    session = sessions.find()
    if session is not None:
        session.record.joined(flow_run.id)
        return _run(session)
    with deployed.session_of(flow_run.id, recipe, force or (), until) as session:
        return _run(session)


def _run(session: Session) -> State:
    """All stages up to the first that is not made; the state of the flow run that follows."""
    states: dict[str, State] = {}
    tell = session.display.note
    with (
        sessions.current(session),
        graceful_shutdown(session.stop, tell, insistent=not session.deployed),
        watched(flow_run.id, session.stop, tell) as line,
    ):
        for node in session.nodes.values():
            before = [states[role] for role in node.inputs]
            inputs = {role: source.fingerprint for role, source in node.inputs.items()}
            named = make.with_options(name=node.name, task_run_name=node.name)
            state = named(node.name, node.fingerprint, inputs, wait_for=before, return_state=True)
            states[node.name] = state
            line.hold()
            if not state.is_completed():
                break
        create_table_artifact(table(session), key="stages", description=f"Stages of {session.recipe.name}")
        _link_report(session)
    if state.is_completed() and session.unsent:
        return Failed(message=remotes.unsent(session))
    if state.is_completed():
        return Completed(message=summary(session))
    message = f"Stage {node.name}: {state.message}"
    if state.is_cancelled() and session.deployed:
        deployed.hand_back(flow_run.id, message)
    return (Cancelled if state.is_cancelled() else Failed)(message=message)


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=ATTEMPTS,
    retry_delay_seconds=BACKOFF,
    retry_condition_fn=may_retry,
)
def make(stage: str, fingerprint: str, inputs: dict[str, str]) -> State:
    """Make one artifact, or find it; the state's name says which. Everything else about it is in the store."""
    session = sessions.find()
    node, display = session.nodes[stage], session.display
    display.begin(stage)
    try:
        if session.stop:
            raise Interrupted(
                f"Stopped ({session.stop.reason}) before stage {stage}. Run the same command again to go on"
            )
        listeners = (display.report, ProgressArtifact(session.recipe.name, stage))
        with session.record.journal.span(stage) as told:
            outcome = gpus.with_gpu_lock(
                node,
                session,
                rerun.is_requested(node, session.store),
                lambda waiting: execute(
                    node,
                    _artifacts(node, session),
                    session.store,
                    session.recipe.compute,
                    stop=session.stop,
                    listeners=listeners,
                    waiting=waiting,
                    remote=session.remote,
                    offered=_offered(stage, session),
                ),
            )
            told.update(outcome=outcome.action, artifact=outcome.artifact.root.name)
        display.end(stage, outcome)
        remotes.send(session, outcome.artifact, made=outcome.action in ("run", "resumed"))
    except Interrupted as interrupted:
        session.error = interrupted
        return Cancelled(message=str(interrupted))
    except Exception as error:
        session.error = error
        if not isinstance(error, FlowctlError):  # Prefect shows no more than its words
            get_run_logger().error("Stage %s failed", stage, exc_info=True)
        raise
    session.error = None  # of an earlier attempt
    session.outcomes[stage] = outcome
    message = f"{outcome.action} in {words.duration(outcome.seconds)}: {outcome.artifact.root}"
    get_run_logger().info(message)
    return Completed(name=STATE_NAMES[outcome.action], message=message)


def _offered(stage: str, session: Session) -> bool:
    """Whether the plan has found the artifact on the remote."""
    return any(step["stage"] == stage and step["action"] == "fetch" for step in session.record.facts["plan"])


def _artifacts(node: Node, session: Session) -> dict[str, Artifact]:
    """The node's inputs. They are in the store, for their stages have just ended."""
    found = {role: session.store.find(role, source.fingerprint) for role, source in node.inputs.items()}
    for role, artifact in found.items():
        if artifact is None:
            raise StageFailed(f"The artifact of stage {role} has vanished from {session.store.home} during the run")
    return found


def table(session: Session) -> list[dict[str, str]]:
    """Each stage's outcome, for the UI."""
    return [
        {
            "stage": name,
            "outcome": outcome.action,
            "time": words.duration(outcome.seconds),
            "artifact": str(outcome.artifact.root),
        }
        for name, outcome in session.outcomes.items()
    ]


def _link_report(session: Session) -> None:
    """Where the finished report lies; a browser opens it on the machine that has the store."""
    if "report" in session.outcomes:
        artifact = session.outcomes["report"].artifact
        page = artifact.path(artifact.metrics["page"])
        create_link_artifact(
            page.as_uri(),
            link_text=str(page),
            key=artifact_key(session.recipe.name, "report-page"),
            description=f"Report of {session.recipe.name}: {page}",
        )


def summary(session: Session) -> str:
    """3 run, 5 reused."""
    actions = [outcome.action for outcome in session.outcomes.values()]
    return ", ".join(f"{actions.count(action)} {action}" for action in STATE_NAMES if action in actions)
