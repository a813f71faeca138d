"""Ranks that are forks of a process which has imported torch: those of torchrun import it for longer than they compute.

For tests of what ranks compute; how they start, die and restart is torchrun's, and tested with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.engine import elastic, worker
from pipeline.recipe.sections import Compute

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch._dynamo", "pipeline.stages.student", "pipeline.stages.pairs", "pipeline.stages.evaluation", __name__]
)


def rank(work: Path, environment: dict[str, str]) -> None:
    """One of them, as torchrun starts it."""
    os.environ.update(environment)
    output = os.open(work / elastic.OUTPUT, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = worker.main(work)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Ranks:
    """The ranks as `subprocess.Popen` shows torchrun."""

    def __init__(self, processes: list) -> None:
        self.processes = processes

    def poll(self) -> int | None:
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else max(map(abs, codes))

    @property
    def returncode(self) -> int | None:
        return self.poll()


@contextlib.contextmanager
def agent(work: Path, compute: Compute, name: str, output: IO[bytes]) -> Iterator[Ranks]:
    """Takes the place of `elastic.agent`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        elastic.LAUNCHER: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(compute.nproc),
    }
    ranks = [
        SERVER.Process(target=rank, args=(work, shared | {"RANK": str(number), "LOCAL_RANK": str(number)}))
        for number in range(compute.nproc)
    ]
    for process in ranks:
        process.start()
    try:
        yield Ranks(ranks)
    finally:
        for process in ranks:
            process.kill()
            process.join()
