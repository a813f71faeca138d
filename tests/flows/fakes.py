"""Stages that need no training, for tests of the orchestration: each counts to `steps` and writes one file.

As a program, `python -m tests.flows.fakes ARGS`, it is `flowctl` with these stages. Behaviour comes from the
environment, so that it reaches other processes: FAKES='{"teacher": {"steps": 50, "fail": "ValueError"}}'.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import sys
import time
import types
from functools import partial

from flows.session import forecasts
from pipeline.data import sources
from pipeline.engine import dag
from pipeline.outputs import results
from pipeline.runtime.job import Job, read_saved
from storage.atomic import write_text
from storage.errors import FlowctlError, StageFailed

GRID = base64.b64decode(  # a PNG of one grey pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
_TRAINED = {"images_seen": 10, "steps": 10, "loss": 0.5, "parameters": 7}
_PROTOCOL = {"metric": "FD-classifier", "n_real": 10, "n_fake": 16}
RESULTS = {
    "data": results.DataResult(name="digits", train=10, test=4, channels=1, size=8, levels=17, classes=("0", "1")),
    "reference": results.ReferenceResult(
        extractor="fake",
        metric="FD-classifier",
        facts={"resized": "no"},
        features=4,
        accuracy=0.9,
        images=10,
        split_half=1.5,
        held_out=2.0,
    ),
    "teacher": results.TeacherResult(
        **_TRAINED, bits_per_dim=3.0, bits_per_dim_train=2.9, dequantisation="gaussian", schedule=[]
    ),
    "bank": results.BankResult(rows=80, draws=8, sigma_f=1.0, noise=0.2, gaussianity={}, warnings=()),
    "student": results.StudentResult(**_TRAINED, coupling="nfm", transport_cost=0.1),
    "reflow": results.ReflowResult(
        **_TRAINED, coupling="reflow", transport_cost=0.1, straightness=0.1, straightness_before=0.2, warnings=()
    ),
    "pairs": results.PairsResult(count=10, nfe=8, solver="euler", straightness=0.9),
    "onestep": results.StudentResult(**_TRAINED, coupling="pairs", transport_cost=0.1),
    "evaluation": results.EvaluationResult(
        protocol="0123456789abcdef",
        floor=1.5,
        held_out={"FD-classifier": 2.0},
        curvature=0.1,
        warnings=(),
        scores=tuple(
            results.Score(
                model="student",
                solver="euler",
                nfe=nfe,
                metric="FD-classifier",
                value=9.0 / nfe,
                protocol={**_PROTOCOL, "grid": grid},
                seconds=0.1,
            )
            for nfe, grid in ((1, "uniform"), (2, "quadratic"))
        ),
    ),
    "report": results.ReportResult(page="report.html"),
}
ERRORS = {
    "ValueError": lambda: ValueError("boom\nsecond line"),
    "StageFailed": lambda: StageFailed("The loss is not finite at image 640"),
    "timeout": lambda: OSError(errno.ETIMEDOUT, "Connection timed out"),
    "missing": lambda: OSError(errno.ENOENT, "No such file or directory", "gone.bin"),
    "FlowctlError": lambda: FlowctlError("Something known went wrong"),
}


def run(job: Job, behaviour: dict) -> results.Result:
    """Count to `steps`, saving each one; raise `fail` at half, the first `times` times; log."""
    steps, half = behaviour.get("steps", 2), behaviour.get("steps", 2) // 2
    saved = read_saved(job.work)
    logging.getLogger(f"pipeline.stages.{job.stage}").info("hello from %s", job.stage)
    for step in range(saved.done if saved else 0, steps):
        if step == half and "fail" in behaviour and _failures(job) < behaviour.get("times", 10**9):
            raise ERRORS[behaviour["fail"]]()
        time.sleep(behaviour.get("seconds", 0.0))
        job.progress(step + 1, steps, "images", loss=1.0 / (step + 1))
        job.saved(step + 1, steps, "images")
        job.pause_point()
    for name in ("report.html", "payload.txt") if job.stage == "report" else ("payload.txt",):
        write_text(job.out / name, f"{job.stage} {sorted(job.inputs)}\n")
    if job.stage == "evaluation":
        (job.out / "samples.png").write_bytes(GRID)
    return RESULTS[job.stage.partition("-")[0]]


def _failures(job: Job) -> int:
    """How often this work directory has failed before; counts this one."""
    path = job.work / "failures.txt"
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    return before


def module(stage: dag.Stage) -> types.SimpleNamespace:
    """Takes the place of `Stage.module`."""
    behaviours = json.loads(os.environ.get("FAKES", "{}"))
    return types.SimpleNamespace(run=partial(run, behaviour=behaviours.get(stage.name, {})))


def install(patch=setattr) -> None:
    """Put the fakes in place; `patch` may be pytest's monkeypatch.setattr."""
    patch(sources, "source_digest", lambda config, cache: "digits-1")
    patch(dag.Stage, "module", module)
    patch(
        forecasts, "stage_times", lambda session, steps, gpu=None: {}
    )  # real networks need torch, and these stages have none
    patch(forecasts, "learn", lambda session, node, outcome: None)


if __name__ == "__main__":
    install()
    sys.argv[0] = "flowctl"
    from flows.cli import main

    main()
