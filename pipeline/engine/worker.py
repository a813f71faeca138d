"""One rank of a stage: `torchrun … worker.py WORK`, started by its path from `pipeline.engine.elastic`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":  # this directory is not on the path: importing `flowctl` puts our packages first
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import flowctl

    del sys.path[0]
    flowctl.check_packages()

from pipeline.engine.elastic import ALIVE, ERRORS, LAUNCHER, LINES, OUTCOME, SPEC, outcome_of
from storage.atomic import write_bytes, write_json

LONGEST_WAIT = timedelta(hours=2)  # that one rank may work alone while the others wait for it
CONNECT_SECONDS = 120.0  # that ranks may take to connect


def main(work: Path) -> int:
    """Run the stage that the work directory names. 0 if the launcher finds an outcome to read."""
    launcher = int(os.environ[LAUNCHER])
    if os.getppid() in (1, launcher):  # torchrun was killed before this rank could see whose child it is
        return 1
    _leave_with(launcher)
    with open(work / ALIVE, "a+") as alive:  # readable too: NFS has a shared lock for no other file
        fcntl.flock(alive, fcntl.LOCK_SH)
        if (work / OUTCOME).exists():  # restarted, though another rank has met an error that a restart does not fix
            return 0
        try:
            import torch.distributed as dist

            _join(dist)
            _run(work)
        except Exception as error:
            return _report(work, error)
        dist.destroy_process_group()
        return 0


def _run(work: Path) -> None:
    """Run the stage. The first rank writes its result once all have finished."""
    from pipeline.engine.dag import stage_named
    from pipeline.recipe import sections as configs
    from pipeline.runtime import ranks
    from pipeline.runtime.job import Job, Progress, StopFile
    from storage.artifact import Artifact

    spec = json.loads((work / SPEC).read_bytes())
    stage = stage_named(spec["stage"])
    if ranks.first():
        _log_to(work / LINES)
    job = Job(
        stage.name,
        getattr(configs, spec["config_type"]).model_validate(spec["config"]),
        {role: Artifact.read(Path(root)) for role, root in spec["inputs"].items()},
        work,
        _placed(configs.Compute.model_validate(spec["compute"])),
        Progress(stage.name, work, silent=not ranks.first()),
        StopFile(work),
        Path(spec["monitor"]) if spec["monitor"] else None,
        ranks.rank(),
    )
    result = stage.module().run(job)
    ranks.barrier()
    if ranks.first():
        write_json(
            work / OUTCOME,
            {"result": stage.result.model_validate(result).model_dump(mode="json"), "timings": job.timings.plain()},
        )


def _join(dist) -> None:
    """Connect to the other ranks: gloo for values on the CPU, NCCL for gradients on GPUs."""
    import torch

    late = threading.Timer(CONNECT_SECONDS, os._exit, (1,))  # the agent then starts all ranks again
    late.daemon = True
    late.start()
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)
    late.cancel()


def _placed(compute):
    """Each rank has a different GPU."""
    import torch

    use_gpu = compute.device != "cpu" and torch.cuda.is_available()
    return compute.model_copy(update={"device": f"cuda:{os.environ['LOCAL_RANK']}"}) if use_gpu else compute


def _report(work: Path, error: Exception) -> int:
    """Write an outcome that all ranks share, or the traceback of a rank that torchrun restarts; the exit code."""
    outcome = outcome_of(error)
    traceback.print_exception(error)
    if outcome is None:
        (work / ERRORS).mkdir(exist_ok=True)
        name = f"{time.time_ns()}-rank-{os.environ.get('RANK')}.txt"
        (work / ERRORS / name).write_text("".join(traceback.format_exception(error)))
        return 1
    with open(work / f"{OUTCOME}.lock", "a") as lock:  # not by a hard link, which some file systems lack
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (work / OUTCOME).exists():  # the first outcome stays
            write_bytes(work / OUTCOME, json.dumps(outcome, default=str).encode())
    return 0


def _log_to(path: Path) -> None:
    """The first rank's log lines, for the launcher to pass on."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = {"name": record.name, "level": record.levelno, "message": record.getMessage()}
            with open(path, "a") as stream:
                stream.write(json.dumps(line) + "\n")

    for name in ("pipeline", "flowctl"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(Lines())


def _leave_with(launcher: int) -> None:
    """No rank outlives its launcher, or torchrun, its parent: two runs would write one work directory.

    Each rank is in another session, so that no signal to torchrun's group reaches it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            try:
                os.kill(launcher, 0)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # collectives that wait for ranks which have left would hold up the interpreter's end
