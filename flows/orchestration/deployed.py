"""The session of a flow run: that of `flowctl run`, or a new one in a process that a Prefect worker started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.exceptions import Abort, Pause
from prefect.runtime import flow_run as runtime
from prefect.states import AwaitingRetry, Cancelled, Suspended

from flows.orchestration.server_watch import stop_reason
from flows.orchestration.stale_runs import close_dead_runs
from flows.session import reruns, settings
from flows.session import session as sessions
from flows.session.display import Logged
from flows.session.process import prepare_process
from flows.session.recording import recording
from flows.session.runs import records
from flows.session.session import Session
from pipeline.engine.plan import plan
from pipeline.recipe.load import validate
from storage.remote import default_remote
from storage.required import required

RETRY_SECONDS = 30  # until a run whose machine was taken away is offered to the workers again


@contextmanager
def session_of(
    flow_run: UUID | str, recipe: dict[str, Any], force: Sequence[str], until: str | None
) -> Iterator[Session]:
    """A recorded session of the recipe. Raises RecipeError if the recipe is invalid.

    `flowctl run` lends its display, stop signal and record to the flow that it calls, and learns the outcome. A worker
    gives the flow nothing but its parameters.
    """
    caller = sessions.find()
    if caller is None:
        prepare_process()  # as `flowctl` does at its start; neither torch nor matplotlib is imported before
    home = None if caller is None else caller.store.home
    session = Session.open(validate(recipe, "of the flow run"), force, until, home, Logged())
    if caller is not None:
        session = replace(caller, recipe=session.recipe, nodes=session.nodes, force=force, until=until)
        session.running_record.joined(flow_run, runtime.run_count)
        try:
            yield session
        finally:
            caller.error = session.error
        return
    session.deployed, session.remote = True, default_remote()
    session.store.prepare()
    if all(facts["flow_run"] != str(flow_run) for facts in records(session.store.home)):  # else it is a retry
        reruns.request([session], resumes=False)
    server = settings.server_url()
    with recording(session, plan(session.nodes, session.store, remote=session.remote), server) as record:
        record.joined(flow_run, runtime.run_count)
        close_dead_runs(session.store.home, server)  # after that: this flow run may be one of them, resumed
        yield session


def hand_back(flow_run: UUID | str, message: str) -> None:
    """Give an interrupted run of a worker the state that was asked for: cancelled, paused, or waiting for a worker.

    A run that was not asked to stop lost its machine or worker (SIGTERM): it waits for the next worker. Always raises
    Abort or Pause, which prevent Prefect from changing that state and from logging a traceback.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run)))
        state = required(run.state, "the state of the flow run")
        details = state.state_details
        if state.is_paused() and details.pause_reschedule:
            raise Pause(state=state)
        if state.is_paused():
            # Prefect resumes such a run in its process, which ends now. It sends a suspended one to a worker instead.
            new: State = Suspended(pause_expiration_time=details.pause_timeout, pause_key=details.pause_key)
        elif stop_reason(state) is not None:
            new = Cancelled(message=message)
        else:
            soon = datetime.now(UTC) + timedelta(seconds=RETRY_SECONDS)
            new = AwaitingRetry(scheduled_time=soon, message=message)
        client.set_flow_run_state(run.id, new, force=True)
    raise Pause(state=new) if new.is_paused() else Abort(message)
