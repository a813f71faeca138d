"""Close the flow runs of killed processes, which Prefect shows as Running for ever. Each new run does this first.

A run that a person started becomes Crashed. A run of a deployment, which its worker would have marked, has lost its
worker too: it waits for another.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun, State
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.session.runs import alive, killed, mark_ended, records
from storage.text import without_password


def close_dead_runs(home: Path, server: str | None) -> None:
    """Close what killed runs left open on the server that we use, or offer it to the workers again.

    Runs of another server stay as they are until a run uses that server. An error here is logged and stops nothing. A
    flow run that this or another process has resumed is not dead.
    """
    dead, here = killed(home), server and without_password(server)
    if not dead:
        return
    living = (facts for facts in records(home) if facts.get("ended") is None and alive(facts, home))
    resumed = {facts["flow_run"] for facts in living} - {None}
    try:
        with get_client(sync_client=True) as client:
            for facts in dead:
                if facts["flow_run"] in resumed or _close(client, facts) or facts["server"] == here:
                    mark_ended(home, facts)
    except Exception as error:
        logging.getLogger("flowctl").warning("A killed run could not be marked in Prefect: %s", error)


def _close(client: SyncPrefectClient, facts: dict[str, Any]) -> bool:
    """Whether the server has the run. A process can die before it notes the id; then the tag finds the run."""
    message = f"Process {facts['pid']} on {facts['host']} was killed; the next run resumes from its saved work"
    query = {"id": {"any_": [facts["flow_run"]]}} if facts["flow_run"] else {"tags": {"all_": [facts["id"]]}}
    mine = FlowRunFilter.model_validate(query)
    runs = client.read_flow_runs(flow_run_filter=mine)
    for run in runs:
        state = _final_state(run, message)
        if state is not None:
            client.set_flow_run_state(run.id, state, force=True)
    for task in client.read_task_runs(flow_run_filter=mine) if runs else ():
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, Crashed(message=message), force=True)
    return bool(runs)


def _final_state(run: FlowRun, message: str) -> State | None:
    """The new state of a flow run whose process is gone; None if its present state is right."""
    state = run.state
    if state is not None and (state.is_final() or state.is_paused()):
        return None
    if state is not None and state.is_cancelling():
        return Cancelled(message=message)
    if run.deployment_id is None:
        return Crashed(message=message)
    return AwaitingRetry(message=message) if state is not None and state.is_running() else None
