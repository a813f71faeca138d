"""A student that leaves curves and samples as a training does, and runs of the small recipe without Prefect."""

import contextlib

import pytest
from PIL import Image

from flows.session import reruns
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from flows.session.trackers import _follow
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from pipeline.training._monitor import Monitor
from storage.errors import FlowctlError
from tests.flows import fakes

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_MODE", "WANDB_DIR")
LAST = 40  # images of the training, a line each 10


@pytest.fixture
def run(home, tiny, monkeypatch):
    """Run the small recipe: `run(force=["student"], fail_at=20)`; its session, whether it failed or not."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_follow, "POLL_SECONDS", 0.01)
    fake = fakes.run

    def call(fail_at=None, **given):
        def training(job, behaviour):
            if job.stage == "student":
                _train(job, fail_at)
            return fake(job, behaviour)

        monkeypatch.setattr(fakes, "run", training)
        session = Session.open(load(tiny), **given)
        session.store.prepare()
        reruns.request([session])
        with contextlib.suppress(FlowctlError), recording(session, plan(session.nodes, session.store)):
            run_stages(session)
        return session

    return call


def _train(job, fail_at):
    """Lines each 10 images from the last save, at 20; samples at the end."""
    start = 20 if (job.work / "at-20").exists() else 0
    monitor = Monitor(job.monitor, start)
    for images in range(start + 10, LAST + 1, 10):
        monitor.line({"images": images, "loss": 1.0 / images, "lr": 0.1})
        if images == 20:
            (job.work / "at-20").touch()
        if images == fail_at:
            monitor.close()
            raise fakes.ERRORS["StageFailed"]()
    monitor.picture(LAST, Image.new("RGB", (8, 8)))
    monitor.close()
