"""Two machines share a run: here two commands with one store that meet on this host."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from storage.store import Store
from tests.tiny import TINY


def command(home: Path, node: int, endpoint: str) -> subprocess.Popen:
    words = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        "nfm-digits",
        "--until",
        "bank",
        "--nnodes",
        "2",
        "--node-rank",
        str(node),
        "--rdzv-endpoint",
        endpoint,
    ]
    for override in TINY:
        words += ["--set", override]
    environment = {**os.environ, "FLOWCTL_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_machines_share_every_stage(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = [command(tmp_path, node, endpoint) for node in (1, 0)]
    try:
        second, first = (node.communicate(timeout=400)[0] for node in nodes)
    finally:
        for node in nodes:
            node.kill()
    assert nodes[1].returncode == 0, first
    assert nodes[0].returncode == 0, second
    for stage in ("teacher", "bank"):
        assert f"{stage}: joining at {endpoint}" in second
        assert f"{stage}: there" in second
    assert {artifact.stage for artifact in Store(tmp_path).artifacts()} == {"data", "teacher", "bank"}
