"""Close the flow runs of killed processes, which Prefect shows as Running for ever. Each new run does this first.

A run that a person started becomes Crashed. A run of a deployment, which its worker would have marked, has lost its
worker too: it waits for another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun, State
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.session.runs import alive, killed, mark_ended, records
from storage.text import without_password

BEGIN = timedelta(minutes=10)  # in which a process that has begun a flow run writes its record, on a busy machine too


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
                runs, mine = _runs(client, facts)
                if facts["flow_run"] not in resumed:
                    if any(_begins(run, facts) for run in runs):
                        continue  # a later run looks again
                    _close(client, facts, runs, mine)
                if facts["flow_run"] in resumed or runs or facts["server"] == here:
                    mark_ended(home, facts)
    except Exception as error:
        logging.getLogger("flowctl").warning("A killed run could not be marked in Prefect: %s", error)


def _runs(client: SyncPrefectClient, facts: dict[str, Any]) -> tuple[list[FlowRun], FlowRunFilter]:
    """The flow run of a record, where the server has it. A process can die before it notes the id; then the tag finds
    the run."""
    query = {"id": {"any_": [facts["flow_run"]]}} if facts["flow_run"] else {"tags": {"all_": [facts["id"]]}}
    mine = FlowRunFilter.model_validate(query)
    return client.read_flow_runs(flow_run_filter=mine), mine


def _begins(run: FlowRun, facts: dict[str, Any]) -> bool:
    """Whether another process has just taken up the run of a dead one. Prefect says Running before the process can
    write its record: that imports, and plans, and would else be started a second time."""
    state, attempt = run.state, facts.get("attempt")
    later = attempt is not None and run.run_count > attempt
    return later and state is not None and state.is_running() and datetime.now(UTC) - state.timestamp < BEGIN


def _close(client: SyncPrefectClient, facts: dict[str, Any], runs: Sequence[FlowRun], mine: FlowRunFilter) -> None:
    """Give the flow runs of a dead process, and their tasks, the states that are right."""
    message = f"Process {facts['pid']} on {facts['host']} was killed; the next run resumes from its saved work"
    for run in runs:
        state = _final_state(run, message)
        if state is not None:
            client.set_flow_run_state(run.id, state, force=True)
    for task in client.read_task_runs(flow_run_filter=mine) if runs else ():
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, Crashed(message=message), force=True)


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
