"""Run a stage in several processes, on one machine or more, under torch's elastic launch (`torchrun`).

The launcher holds the lock, the plan and the publication; the ranks share the work directory. They communicate by small
files there: the stage (ranks.json), the request to stop (stop), progress, log lines, and how it ended (outcome.json).
If a rank dies, all ranks restart together and resume from the stage's saved work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.recipe.sections import Compute
from pipeline.runtime.job import PROGRESS, STOP, Job, StopSignal, read_progress
from storage import errors
from storage.atomic import write_json
from storage.errors import BusyError, FlowctlError, Interrupted, StageFailed

SPEC, OUTCOME, LINES, OUTPUT, ALIVE, ERRORS = (
    "ranks.json",
    "outcome.json",
    "log.jsonl",
    "ranks.log",
    "ranks.lock",
    "ranks-errors",
)
RESTARTS = 3  # of all ranks, after one has died
POLL_SECONDS = 0.1
LEAVE_SECONDS = 60.0  # that ranks have to save and leave, and that those of a dead launcher have to notice
END_SECONDS = 40.0  # that torchrun has to end its ranks; it gives them 30 before it kills them
WORKER = Path(__file__).with_name("worker.py")
LAUNCHER = "FLOWCTL_LAUNCHER"  # the launcher's process id, for ranks to leave with it


class RanksDied(StageFailed):
    """The ranks of a stage, or their launcher, ended without a result."""

    retryable = True


def run_in_ranks(job: Job) -> dict[str, Any]:
    """The stage's result as plain data.

    Raises the error that its ranks raised: a FlowctlError or OSError as it is, any other as StageFailed.
    """
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
    try:
        with open(job.work / OUTPUT, "wb") as output, agent(job.work, job.compute, job.stage, output) as process:
            _attend(job, process)
    finally:  # no further machine is to join what is over, however long it takes to publish
        (job.work / SPEC).unlink(missing_ok=True)
    return _result(job, process.returncode)


@contextlib.contextmanager
def agent(work: Path, compute: Compute, name: str, output: Any) -> Iterator[subprocess.Popen]:
    """torchrun with this machine's ranks, in a new session, so that Ctrl-C reaches the launcher alone.

    However the block ends, none of its processes stays.
    """
    where = ["--standalone", "--local-addr=127.0.0.1"]  # the machine's own name may have no address
    if compute.nnodes > 1:
        where = [
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={compute.rendezvous}",
            f"--rdzv-id={name}-{work.name}",
            f"--rdzv-conf=is_host={str(compute.node_rank == 0).lower()}",
        ]
    command = [
        sys.executable,
        "-P",
        "-m",
        "torch.distributed.run",
        f"--nnodes={compute.nnodes}",
        f"--nproc-per-node={compute.nproc}",
        f"--max-restarts={RESTARTS}",
        "--monitor-interval=0.2",
        f"--log-dir={work / 'torchelastic'}",  # else in /tmp, where it stays
        *where,
        str(WORKER),  # by its path: in the current directory, or on PYTHONPATH, may be another `pipeline`
        str(work),
    ]
    environment = {
        **os.environ,
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": str(compute.cores),
        "PYTHONSAFEPATH": "1",  # neither the current directory nor the worker's is searched for modules
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
    """Pass on the ranks' progress and log, and to them a request to stop, until they are done."""
    read, seen, deadline = 0, 0.0, None
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        read = _relay_log(job.work / LINES, read)
        seen = _relay_progress(job, seen)
        if job.stop and deadline is None:
            (job.work / STOP).write_text(job.stop.reason or "")
            deadline = time.monotonic() + LEAVE_SECONDS
        if deadline is None and (job.work / OUTCOME).exists():
            deadline = time.monotonic() + LEAVE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            logging.getLogger(__name__).warning(
                "%s: its ranks did not leave within %d s and are ended", job.stage, LEAVE_SECONDS
            )
            return
    _relay_log(job.work / LINES, read)
    _relay_progress(job, seen)


def _relay_log(path: Path, read: int) -> int:
    """Log the lines that the first rank has written beyond byte `read`; how many bytes are read now."""
    if not path.exists():
        return read
    with open(path, "rb") as stream:
        stream.seek(read)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            read += len(line)
            record = json.loads(line)
            logging.getLogger(record["name"]).log(record["level"], "%s", record["message"])
    return read


def _relay_progress(job: Job, seen: float) -> float:
    """Pass the listeners the first rank's progress if it is of another time than `seen`, earlier where the clock was
    set back; the time that it is of."""
    report = read_progress(job.work)
    if report is None or report.facts["time"] == seen:
        return seen
    for listener in job.progress.listeners:
        listener(report)
    return report.facts["time"]


def _result(job: Job, code: int) -> dict[str, Any]:
    """The result that the ranks left. Raises the error that one of them met; `code` is torchrun's exit code."""
    try:
        outcome = json.loads((job.work / OUTCOME).read_bytes())
    except (OSError, ValueError):
        if job.stop:
            raise Interrupted(f"Stopped in stage {job.stage} ({job.stop.reason}). Its last checkpoint stays.") from None
        raise RanksDied(_post_mortem(job, code)) from None
    if "result" in outcome:
        job.timings.take(outcome["timings"])
        return outcome["result"]
    raise error_from(outcome)


def _post_mortem(job: Job, code: int) -> str:
    """Why the ranks died again and again, or torchrun did."""
    how = f"torchrun was ended by {_signal(-code)}" if code < 0 else f"its processes died {RESTARTS + 1} times"
    return (
        f"Stage {job.stage}: {how}: {_cause(job.work)}. Their output is in {job.work / OUTPUT}. "
        "Progress up to the last checkpoint is saved."
    )


def _cause(work: Path) -> str:
    """The first error of a rank; else the signal that ended the first; else the last line that is not torchrun's."""
    if errors_of_ranks := sorted((work / ERRORS).glob("*.txt")):  # named by their time
        return _last_line(errors_of_ranks[0].read_text())
    text = (work / OUTPUT).read_text(errors="replace")
    # torchrun's summary has its root cause last. The others are ended by torchrun itself.
    exits = re.findall(r"^\s*exitcode\s*: (-?\d+)", text, re.MULTILINE)
    if exits and (number := -int(exits[-1])) > 0:
        hint = ", which the system sends when memory runs out" if number == signal.SIGKILL else ""
        return f"one of them was ended by {_signal(number)}{hint}"
    of_ranks = text.partition('Traceback (most recent call last):\n  File "<frozen runpy>"')[0]
    return _last_line(re.sub(r"^[EWI]\d{4} .*$", "", of_ranks, flags=re.MULTILINE) or text)


def _last_line(text: str) -> str:
    """The last line with a letter in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if re.search("[A-Za-z]", line)), "without output")


def _signal(number: int) -> str:
    return f"signal {number} ({signal.Signals(number).name})"


def outcome_of(error: BaseException) -> dict[str, Any] | None:
    """An error that all ranks share, as plain data; None for one that a restart may fix.

    A class of another module than `storage.errors` travels as the class there that it is based on.
    """
    if isinstance(error, FlowctlError):
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return {"error": name, "message": str(error), "facts": vars(error)}
    if isinstance(error, OSError) and error.errno is not None:
        return {"error": "OSError", "arguments": [error.errno, error.strerror, error.filename and str(error.filename)]}
    if errors.out_of_memory(error):  # a rank that starts again would need as much
        return {"error": "MemoryError", "arguments": [str(error).partition("\n")[0]]}
    return None


def error_from(outcome: dict[str, Any]) -> BaseException:
    """The reverse of `outcome_of`."""
    if plain := {"OSError": OSError, "MemoryError": MemoryError}.get(outcome["error"]):
        return plain(*outcome["arguments"])
    kind = getattr(errors, outcome["error"])
    error = kind.__new__(kind, outcome["message"])  # without its __init__, which would compose the message
    vars(error).update(outcome["facts"])
    return error


def await_orphans(work: Path, stop: StopSignal, patience: float = LEAVE_SECONDS) -> None:
    """Wait for ranks whose launcher was killed: they leave within two seconds, and write the work directory until then.

    Raises BusyError if they do not, Interrupted if a stop is requested meanwhile.
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
                        f"Stopped ({stop.reason}) while processes of an earlier run leave {work}."
                    ) from None
                if time.monotonic() > deadline:
                    raise BusyError(f"Processes of an earlier run still work in {work}. End them.") from None
                time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen) -> None:
    """End torchrun and its ranks, by SIGTERM and then SIGKILL. Ranks that it could not end leave by themselves."""
    for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, 10.0)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
