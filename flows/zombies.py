"""Flow runs of killed processes say Running for ever, for nobody was left to say otherwise. The next run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.states import Crashed

from flows.runs import bury, killed


def mark_crashed(home: Path, server: str | None) -> int:
    """Force `Crashed` on what the killed runs of this host, on this server, left open; how many runs that were."""
    dead = [facts for facts in killed(home) if facts["server"] == server]
    if dead:
        with get_client(sync_client=True) as client:
            for facts in dead:
                _crash(client, facts)
                bury(home, facts)
    return len(dead)


def _crash(client: SyncPrefectClient, facts: dict[str, Any]) -> None:
    """Found by tag, not by id: a process can die before it has noted its flow run's id."""
    message = f"Process {facts['pid']} on {facts['host']} is gone; the same command goes on where it was"
    mine = FlowRunFilter.model_validate({"tags": {"all_": [facts["id"]]}})
    for run in client.read_flow_runs(flow_run_filter=mine):
        if run.state is None or not run.state.is_final():
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    for run in client.read_task_runs(flow_run_filter=mine, task_run_filter=TaskRunFilter()):
        if run.state is None or not run.state.is_final():
            client.set_task_run_state(run.id, Crashed(message=message), force=True)
