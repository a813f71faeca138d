"""Run a recipe: plan, and where there is something to make, or a server to record it, let Prefect orchestrate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.orchestration.server import EmbeddedServer, ServerFailed, check_server
from flows.session import settings
from flows.session.joining import join
from flows.session.logs import forward_logs
from flows.session.recorded import source_of
from flows.session.remotes import move_all
from flows.session.runs import RunRecord
from flows.session.session import Session, current
from pipeline.engine import rerun
from pipeline.engine.execute import failure
from pipeline.engine.plan import Step, plan
from storage.errors import FlowctlError, StageFailed


def launch(session: Session, debug: bool = False) -> list[Step]:
    """Make what is missing; the plan that was followed. Raises FlowctlError, or KeyboardInterrupt.

    With nothing to make and no server to tell, neither torch nor Prefect is imported.
    """
    session.store.prepare()
    if session.recipe.compute.node_rank:
        join(session)
    else:
        rerun.request(session.nodes, session.force, session.store)
    steps = plan(session.nodes, session.store, remote=session.remote)
    server, actions = settings.server_url(), {step.action for step in steps}
    if server is None and actions == {"reuse"}:
        if session.remote is not None and not session.recipe.compute.node_rank:  # the first machine sends
            with session.display:
                move_all(session, steps)
    elif server is None and actions <= {"reuse", "fetch"}:
        _recorded(session, steps, server, lambda: move_all(session, steps))
    else:
        _connect(session, debug)
        _recorded(session, steps, server, lambda: _orchestrate(session, server))
    return steps


def _recorded(session: Session, steps: list[Step], server: str | None, work: Callable[[], str]) -> None:
    """Do the work of a run, which returns how it ended in words, under a record that says so."""
    session.record = RunRecord(session.store.home, session.recipe.model_dump(mode="json"), outline(steps), server)
    outcome = "stopped at once"
    try:
        with session.display, forward_logs(session.display, session.record.journal):
            outcome = work()
    except Exception as error:
        outcome = f"failed: {error}"
        raise
    finally:
        session.record.end(outcome)


def outline(steps: list[Step]) -> list[dict[str, Any]]:
    """A plan as plain data, with the identity of what is read from outside the store."""
    return [
        {"stage": step.node.name, "action": step.action, "reason": step.reason, "fingerprint": step.node.fingerprint}
        | ({"source": source_of(step.node)} if step.node.external else {})
        for step in steps
    ]


def _connect(session: Session, debug: bool) -> None:
    """A server that answers: the user's, or one of our own."""
    settings.configure(debug)
    if settings.server_url() is not None:
        check_server()
        return
    server = EmbeddedServer(session.store.home / "prefect")
    import flows.orchestration.pipeline_flow  # noqa: F401 - slow, while the server starts

    server.wait()


def _orchestrate(session: Session, server: str | None) -> str:
    from prefect import tags
    from prefect.exceptions import Abort

    from flows.orchestration.pipeline_flow import pipeline
    from flows.orchestration.stale_runs import close_dead_runs

    close_dead_runs(session.store.home, server)
    try:
        with current(session), tags(session.record.id):
            state = pipeline(session.recipe.model_dump(mode="json"), list(session.force), return_state=True)
    except (Exception, Abort) as error:  # the stages' errors come as states; this is Prefect's own trouble
        detail = "" if isinstance(error, Abort) else f" ({type(error).__name__}: {error})"
        raise ServerFailed(
            f"The Prefect server went away during the run{detail}. What is finished is kept: run the same command again"
        ) from error
    if not state.is_completed():
        raise _explained(session, state.message)
    return state.message


def _explained(session: Session, message: str) -> FlowctlError:
    """What went wrong, as an error for the user."""
    if session.error is None:
        return StageFailed(message)
    return failure(next(name for name in session.nodes if name not in session.outcomes), session.error)
