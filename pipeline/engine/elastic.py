"""Run a stage in several processes, on one machine or more, under torch's elastic launch (`torchrun`).

The launcher keeps lock, plan and publication; the ranks share the work directory. What passes between them are small
files there: the stage (ranks.json), the wish to stop (stop), progress, log lines, and how it ended (outcome.json).
Ranks that die are restarted, all together, and go on from what the stage has saved.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.recipe.sections import Compute
from pipeline.runtime.job import PROGRESS, STOP, Job, ProgressUpdate, StopSignal
from storage import errors
from storage.atomic import write_json
from storage.errors import FlowctlError, Interrupted, StageFailed

SPEC, OUTCOME, LINES, OUTPUT, ALIVE, ERRORS = (
    "ranks.json",
    "outcome.json",
    "log.jsonl",
    "ranks.log",
    "ranks.lock",
    "ranks-errors",
)
RESTARTS = 3  # of all ranks, after one has died
POLL = 0.1  # seconds
PATIENCE = 60.0  # seconds that ranks have to save and leave, and that those of a dead launcher have to notice
ENDING = 40.0  # seconds that torchrun has to end its ranks; it gives them 30 before it kills them
LAUNCHER = "FLOWCTL_LAUNCHER"  # the launcher's process id, for ranks to leave with it


def run_in_ranks(job: Job) -> dict[str, Any]:
    """The stage's result as plain data. Raises what its ranks raised; errors of Python's own as StageFailed."""
    for name in (OUTCOME, STOP, LINES, PROGRESS):
        (job.work / name).unlink(missing_ok=True)
    for file in job.work.glob(f"{ERRORS}/*.txt"):
        file.unlink()
    write_json(
        job.work / SPEC,
        {
            "stage": job.stage,
            "config_type": type(job.config).__name__,
            "config": job.config.model_dump(mode="json"),
            "inputs": {role: str(artifact.root) for role, artifact in job.inputs.items()},
            "compute": job.compute.model_dump(mode="json"),
            "monitor": job.monitor and str(job.monitor),
        },
    )
    with open(job.work / OUTPUT, "ab") as output, agent(job.work, job.compute, job.stage, output) as process:
        _attend(job, process)
    return _result(job, process.returncode)


@contextlib.contextmanager
def agent(work: Path, compute: Compute, name: str, output: Any) -> Iterator[subprocess.Popen]:
    """torchrun with this machine's ranks, in a session of its own, so that Ctrl-C reaches the launcher alone.

    Whatever ends the block, no process of it stays.
    """
    where = ["--standalone"]
    if compute.nnodes > 1:
        where = [
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={compute.rendezvous}",
            f"--rdzv-id={name}-{work.name}",
            f"--rdzv-conf=is_host={str(compute.node_rank == 0).lower()}",
        ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={compute.nnodes}",
        f"--nproc-per-node={compute.nproc}",
        f"--max-restarts={RESTARTS}",
        "--monitor-interval=0.2",
        *where,
        "-m",
        "pipeline.engine.worker",
        str(work),
    ]
    environment = {
        **os.environ,
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": str(compute.cores),
        # Else ranks that are started again find the addresses of the dead ones, and may wait for those.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _attend(job: Job, process: subprocess.Popen) -> None:
    """Pass the ranks' progress and log on, and the wish to stop to them, until they are done."""
    heard, seen, patience = 0, 0.0, None
    while process.poll() is None:
        time.sleep(POLL)
        heard = _relay_log(job.work / LINES, heard)
        seen = _relay_progress(job, seen)
        if job.stop and patience is None:
            (job.work / STOP).write_text(job.stop.reason or "")
            patience = time.monotonic() + PATIENCE
        if patience is None and (job.work / OUTCOME).exists():
            patience = time.monotonic() + PATIENCE
        if patience is not None and time.monotonic() > patience:
            logging.getLogger(__name__).warning(
                "%s: its ranks did not leave within %d s and are ended", job.stage, PATIENCE
            )
            return
    _relay_log(job.work / LINES, heard)
    _relay_progress(job, seen)


def _relay_log(path: Path, heard: int) -> int:
    """Log what the first rank has logged beyond byte `heard`."""
    if not path.exists():
        return heard
    with open(path, "rb") as stream:
        stream.seek(heard)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            heard += len(line)
            record = json.loads(line)
            logging.getLogger(record["name"]).log(record["level"], "%s", record["message"])
    return heard


def _relay_progress(job: Job, seen: float) -> float:
    """Tell the listeners what the first rank has written since the time `seen`."""
    try:
        line = json.loads((job.work / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return seen
    if line["time"] > seen:
        known = {key: line.pop(key) for key in ("stage", "done", "total", "unit", "rate")}
        for listener in job.progress.listeners:
            listener(ProgressUpdate(facts=line, **known))
    return line["time"]


def _result(job: Job, code: int) -> dict[str, Any]:
    """What the ranks left: a result, or the error that one of them met. `code` is how torchrun ended."""
    try:
        outcome = json.loads((job.work / OUTCOME).read_bytes())
    except (OSError, ValueError):
        if job.stop:
            raise Interrupted(
                f"Stopped in stage {job.stage} ({job.stop.reason}). What was saved before is kept: run "
                "the same command again to go on"
            ) from None
        raise StageFailed(_post_mortem(job, code)) from None
    if "result" in outcome:
        return outcome["result"]
    raise error_from(outcome)


def _post_mortem(job: Job, code: int) -> str:
    """Ranks died again and again, or torchrun did: what the first of them said, or else the end of their output."""
    found = sorted((job.work / ERRORS).glob("*.txt"), key=lambda file: file.stat().st_mtime)
    text = found[0].read_text() if found else (job.work / OUTPUT).read_text(errors="replace")
    last = [line for line in text.splitlines() if line.strip()][-1:]
    what = f"torchrun was ended by signal {-code}" if code < 0 else f"its processes died {RESTARTS + 1} times"
    return (
        f"Stage {job.stage}: {what}; {last[0] if last else 'without a word'}. "
        f"Their output is in {job.work / OUTPUT}. What was saved is kept: run the same command again"
    )


def outcome_of(error: BaseException) -> dict[str, Any] | None:
    """An error that all ranks share, as plain data; None for one that a restart may cure."""
    if isinstance(error, FlowctlError):
        return {"error": type(error).__name__, "message": str(error), "facts": vars(error)}
    if isinstance(error, OSError) and error.errno is not None:
        return {"error": "OSError", "arguments": [error.errno, error.strerror, error.filename and str(error.filename)]}
    return None


def error_from(outcome: dict[str, Any]) -> BaseException:
    """The reverse of `outcome_of`."""
    if outcome["error"] == "OSError":
        return OSError(*outcome["arguments"])
    kind = getattr(errors, outcome["error"])
    error = kind.__new__(kind, outcome["message"])  # the words are there already
    vars(error).update(outcome["facts"])
    return error


def await_orphans(work: Path, stop: StopSignal, patience: float = PATIENCE) -> None:
    """Ranks whose launcher was killed leave within a second or two; until then the work directory is theirs.

    Raises StageFailed if they do not, Interrupted where a stop was asked for meanwhile.
    """
    path = work / ALIVE
    if not path.exists():
        return
    with open(path, "a") as stream:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if stop:
                    raise Interrupted(
                        f"Stopped ({stop.reason}) while processes of an earlier run leave {work}. Run "
                        "the same command again to go on"
                    ) from None
                if time.monotonic() > deadline:
                    raise StageFailed(
                        f"Processes of an earlier run still work in {work}. End them, and run the same command again"
                    ) from None
                time.sleep(POLL)


def _end(process: subprocess.Popen) -> None:
    """Gently, then at once; with all its ranks, which leave by themselves where torchrun could not end them."""
    for number, patience in ((signal.SIGTERM, ENDING), (signal.SIGKILL, 10.0)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
