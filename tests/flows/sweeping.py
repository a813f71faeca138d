"""`flowctl` for tests of sweeps: its children run the fake stages without Prefect, under the locks of made-up GPUs.

As a program, `python -m tests.flows.sweeping ARGS`. With MEET=N a student waits until N students run, and with ALONE
it fails where another one runs.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from tests.flows import fakes

CHILD = (sys.executable, "-m", "tests.flows.sweeping")


def student(job, behaviour):
    """The fake student, which meets the others, or makes sure that there is none."""
    here = Path(os.environ["FLOWCTL_HOME"]) / "students"
    here.mkdir(exist_ok=True)
    mine = here / f"{os.getpid()} on {os.environ.get('CUDA_VISIBLE_DEVICES')}"
    mine.touch()
    deadline = time.monotonic() + 900
    while len(list(here.iterdir())) < int(os.environ.get("MEET", 0)):
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.02)
    assert "ALONE" not in os.environ or len(list(here.iterdir())) == 1
    try:
        return fakes.run(job, behaviour)
    finally:
        if "MEET" not in os.environ:
            mine.unlink()


def install() -> None:
    from flows.session import gpu_lock
    from pipeline.engine import dag

    fakes.install()
    module = dag.Stage.module

    def with_students(stage):
        fake = module(stage)
        if stage.name == "student":
            fake.run = partial(student, behaviour=fake.run.keywords["behaviour"])
        return fake

    dag.Stage.module = with_students
    home = os.environ["FLOWCTL_HOME"].replace("/", "-")
    gpu_lock.devices = lambda compute, parallel: {
        f"{home}-{gpu}": f"GPU {gpu}" for gpu in [os.environ.get("CUDA_VISIBLE_DEVICES")] if gpu is not None
    }


def run_here(session, debug=False):
    """Takes the place of `launch`: the stages in this process, without Prefect."""
    from flows.session.interrupts import graceful_shutdown
    from flows.session.recording import recording, run_stages
    from pipeline.engine.plan import plan

    session.store.prepare()
    steps = plan(session.nodes, session.store)
    with recording(session, steps), graceful_shutdown(session.stop, session.display.note):
        run_stages(session)
    return steps


if __name__ == "__main__":
    install()
    from flows.cli import main
    from flows.orchestration import children, launch

    children.PROGRAM = CHILD
    launch.launch = run_here
    sys.argv[0] = "flowctl"
    main()
