"""Flow runs of killed processes say Running for ever, for nobody was left to say otherwise. The next run does.

One that a person started is marked as crashed. One of a deployment, whose worker would have marked it, has lost the
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


def close_dead_runs(home: Path, server: str | None) -> None:
    """Close, or offer to the workers again, what killed runs left open on the server that we talk to.

    A run of another server is left for the day when we talk to that one. What cannot be marked stops nobody. A flow
    run that has been taken up again, by this process or another, is not dead.
    """
    dead = killed(home)
    if not dead:
        return
    going_on = (facts for facts in records(home) if facts.get("ended") is None and alive(facts, home))
    taken_up = {facts["flow_run"] for facts in going_on} - {None}
    try:
        with get_client(sync_client=True) as client:
            for facts in dead:
                if facts["flow_run"] in taken_up or _settle(client, facts) or facts["server"] == server:
                    mark_ended(home, facts)
    except Exception as error:
        logging.getLogger("flowctl").warning("A killed run could not be marked in Prefect: %s", error)


def _settle(client: SyncPrefectClient, facts: dict[str, Any]) -> bool:
    """Whether the server knows the run. Without an id it is found by tag: a process can die before it notes that."""
    message = f"Process {facts['pid']} on {facts['host']} was killed; the same command goes on from what it had saved"
    known = {"id": {"any_": [facts["flow_run"]]}} if facts["flow_run"] else {"tags": {"all_": [facts["id"]]}}
    mine = FlowRunFilter.model_validate(known)
    runs = client.read_flow_runs(flow_run_filter=mine)
    for run in runs:
        state = _afterlife(run, message)
        if state is not None:
            client.set_flow_run_state(run.id, state, force=True)
    for run in client.read_task_runs(flow_run_filter=mine) if runs else ():
        if run.state is None or not run.state.is_final():
            client.set_task_run_state(run.id, Crashed(message=message), force=True)
    return bool(runs)


def _afterlife(run: FlowRun, message: str) -> State | None:
    """The state of a flow run whose process is gone; None where what it has is true."""
    state = run.state
    if state is not None and (state.is_final() or state.is_paused()):
        return None
    if state is not None and state.is_cancelling():
        return Cancelled(message=message)
    if run.deployment_id is None:
        return Crashed(message=message)
    return AwaitingRetry(message=message) if state is not None and state.is_running() else None
