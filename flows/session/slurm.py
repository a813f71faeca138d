"""The machines of a Slurm job step: `srun flowctl run …` starts the same command once on each node."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from storage.errors import UsageError
from storage.required import required

FIRST_PORT, PORTS = 20000, 10000  # of the rendezvous, by the job's id


def machines(environment: Mapping[str, str] = os.environ) -> dict[str, int | str]:
    """Fields of `compute` by the variables that srun sets; empty outside of a step, as in the batch script itself.

    Raises UsageError for a step on several nodes that does not have one task on each.
    """
    nodes, tasks = (int(environment.get(f"SLURM_STEP_NUM_{name}") or 0) for name in ("NODES", "TASKS"))
    if nodes == 0:
        return {}
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    fields: dict[str, int | str] = {"nproc": int(gpus)} if gpus.isdecimal() and int(gpus) else {}
    if nodes == 1:
        return fields
    if tasks != nodes:
        raise UsageError(
            "A Slurm step must start flowctl once on each node",
            f"{tasks} tasks on {nodes} nodes",
            "Use srun --ntasks-per-node=1: flowctl starts a process for each GPU.",
        )
    port = FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS
    return fields | {
        "nnodes": nodes,
        "node_rank": int(environment["SLURM_NODEID"]),
        "rendezvous": f"{first_host(environment['SLURM_STEP_NODELIST'])}:{port}",
    }


def first_host(nodes: str) -> str:
    """The first host of a list such as gpu[007-010,12]-ib,other3: gpu007-ib."""
    match = required(re.match(r"(?P<before>[^\[,]*)(?:\[(?P<number>\d+)[^\]]*\])?(?P<after>[^\[,]*)", nodes), "a host")
    return match["before"] + (match["number"] or "") + match["after"]
