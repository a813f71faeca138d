"""The machines of a Slurm job step: `srun flowctl run …` starts the same command once on each node."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from storage.errors import UsageError
from storage.required import required

FIRST_PORT, PORTS = 20000, 10000  # of the rendezvous, by the job's id
REMEDY = "Start flowctl by srun, which sets it, or name the machines: --nnodes, --node-rank and --rdzv-endpoint."


def machines(environment: Mapping[str, str] = os.environ) -> dict[str, int | str]:
    """Fields of `compute` by the variables that srun sets; empty outside of a step, as in the batch script itself.

    Raises UsageError for a step on several nodes that does not have one task on each, and for variables that do not say
    where its machines are.
    """
    if not environment.get("SLURM_STEP_NUM_NODES"):
        return {}
    nodes = _number(environment, "SLURM_STEP_NUM_NODES")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    fields: dict[str, int | str] = {"nproc": int(gpus)} if gpus.isdecimal() and int(gpus) else {}
    if nodes == 1:
        return fields
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS")
    if tasks != nodes:
        raise UsageError(
            "A Slurm step must start flowctl once on each node",
            f"{tasks} tasks on {nodes} nodes",
            "Use srun --ntasks-per-node=1: flowctl starts a process for each GPU.",
        )
    rank, port = _number(environment, "SLURM_NODEID"), FIRST_PORT + _number(environment, "SLURM_JOB_ID") % PORTS
    if rank >= nodes:
        raise UsageError(f"SLURM_NODEID must be less than SLURM_STEP_NUM_NODES, {nodes}", rank, REMEDY)
    hosts = environment.get("SLURM_STEP_NODELIST", "")
    host = first_host(hosts)
    if not re.fullmatch(r"[^\s:/]+", host):
        raise UsageError("SLURM_STEP_NODELIST must be a list of hosts in a Slurm step on several nodes", hosts, REMEDY)
    return fields | {"nnodes": nodes, "node_rank": rank, "rendezvous": f"{host}:{port}"}


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdecimal():
        raise UsageError(f"{name} must be a number in a Slurm step", value, REMEDY)
    return int(value)


def first_host(nodes: str) -> str:
    """The first host of a list such as gpu[007-010,12]-ib,other3: gpu007-ib."""
    match = required(re.match(r"(?P<before>[^\[,]*)(?:\[(?P<number>\d+)[^\]]*\])?(?P<after>[^\[,]*)", nodes), "a host")
    return match["before"] + (match["number"] or "") + match["after"]
