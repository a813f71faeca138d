"""Flow runs of killed processes say Running for ever, for nobody was left to say otherwise. The next run does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import Crashed

from flows.runs import bury, killed


def mark_crashed(home: Path, server: str | None) -> None:
    """Force `Crashed` on what the killed runs of this host left open on the server that we talk to.

    A run of another server is left for the day when we talk to that one. What cannot be marked stops nobody.
    """
    dead = killed(home)
    if not dead:
        return
    try:
        with get_client(sync_client=True) as client:
            for facts in dead:
                if _crash(client, facts) or facts["server"] == server:
                    bury(home, facts)
    except Exception as error:
        logging.getLogger("flowctl").warning("A killed run could not be marked in Prefect: %s", error)


def _crash(client: SyncPrefectClient, facts: dict[str, Any]) -> bool:
    """Whether the server knows the run. It is found by tag: a process can die before it notes its flow run's id."""
    crashed = Crashed(message=f"Process {facts['pid']} on {facts['host']} was killed; the same command goes on from "
                              "what it had saved")
    mine = FlowRunFilter.model_validate({"tags": {"all_": [facts["id"]]}})
    runs = client.read_flow_runs(flow_run_filter=mine)
    for run in runs:
        if run.state is None or not run.state.is_final():
            client.set_flow_run_state(run.id, crashed, force=True)
    for run in client.read_task_runs(flow_run_filter=mine) if runs else ():
        if run.state is None or not run.state.is_final():
            client.set_task_run_state(run.id, crashed, force=True)
    return bool(runs)
