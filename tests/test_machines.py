"""Two machines share a run: here two commands with one store that meet on this host."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.session import slurm
from storage.store import Store
from tests.tiny import TINY


def command(home: Path, words: list[str], variables: dict[str, str]) -> subprocess.Popen:
    words = [sys.executable, "-m", "flows.cli", "run", "nfm-digits", "--until", "bank", *words]
    for override in TINY:
        words += ["--set", override]
    environment = {**os.environ, "FLOWCTL_HOME": str(home), "OMP_NUM_THREADS": "1", **variables}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    """A port that Slurm's jobs have their rendezvous at."""
    for port in range(slurm.FIRST_PORT, slurm.FIRST_PORT + slurm.PORTS):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@pytest.mark.slow
def test_two_machines_share_every_stage(tmp_path):
    """The first is given its place by options, the second reads it from Slurm."""
    port = free_port()
    endpoint = f"127.0.0.1:{port}"
    step = {
        "SLURM_JOB_ID": str(7 * slurm.PORTS + port - slurm.FIRST_PORT),
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.[1-2]",
        "SLURM_NODEID": "1",
    }
    options = ["--nnodes", "2", "--node-rank", "0", "--rdzv-endpoint", endpoint]
    nodes = [command(tmp_path, [], step), command(tmp_path, options, {})]
    try:
        second, first = (node.communicate(timeout=400)[0] for node in nodes)
    finally:
        for node in nodes:
            node.kill()
    assert nodes[1].returncode == 0, first
    assert nodes[0].returncode == 0, second
    for stage in ("teacher", "bank"):
        assert f"{stage}: joining at {endpoint}" in second
        assert f"{stage}: finished" in second
    assert {artifact.stage for artifact in Store(tmp_path).artifacts()} == {"data", "teacher", "bank"}
