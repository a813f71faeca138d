"""A flow run that a worker of Prefect started: nobody has prepared a session, and nobody watches its terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import Abort, Pause
from prefect.states import AwaitingRetry

from flows.orchestration.launch import outline
from flows.orchestration.server_watch import wish
from flows.orchestration.stale_runs import close_dead_runs
from flows.session import settings
from flows.session.display import Logged
from flows.session.logs import forward_logs
from flows.session.runs import RunRecord, records
from flows.session.session import Session
from pipeline.engine import rerun
from pipeline.engine.plan import plan
from pipeline.recipe.load import validate
from storage.remote import default_remote

AGAIN = 30  # seconds until a run whose machine was taken away is offered to the workers again


@contextmanager
def session_of(
    flow_run: UUID | str, recipe: dict[str, Any], force: Sequence[str], until: str | None
) -> Iterator[Session]:
    """A session with a record of its own. Raises InputError for a recipe that is not sound: never tried again."""
    session = Session.open(validate(recipe, "of the deployment"), force, until, display=Logged())
    session.deployed = True
    session.remote = default_remote()
    session.store.prepare()
    if all(facts["flow_run"] != str(flow_run) for facts in records(session.store.home)):  # else what is left is known
        rerun.request(session.nodes, session.force, session.store)
    session.record = RunRecord(
        session.store.home,
        session.recipe.model_dump(mode="json"),
        outline(plan(session.nodes, session.store, remote=session.remote)),
        settings.server_url(),
    )
    session.record.joined(flow_run)
    outcome = "stopped at once"
    try:
        with forward_logs(journal=session.record.journal):
            close_dead_runs(session.store.home, settings.server_url())
            yield session
        outcome = f"failed: {session.error}" if session.error else "done"
    except (Abort, Pause):
        outcome = f"stopped: {session.error}"
        raise
    except Exception as error:
        outcome = f"failed: {error}"
        raise
    finally:
        session.record.end(outcome)


def hand_back(flow_run: UUID | str, message: str) -> None:
    """End an interrupted run as it was asked for. Returns for one that was cancelled.

    A paused one stays paused: raises Pause. One that nobody asked to stop lost its machine or its worker (SIGTERM):
    it waits for the next worker, and Abort keeps Prefect from changing that.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run)))
        reason = wish(run.state)
        if reason is None:
            soon = datetime.now(UTC) + timedelta(seconds=AGAIN)
            client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=soon, message=message), force=True)
            raise Abort(message)
    if run.state.is_paused():
        raise Pause(state=run.state)
