"""The smoke test: the reduced recipe through all stages, in a temporary store, without Prefect."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.session.display import display
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from pipeline.engine.plan import plan
from pipeline.recipe import smoke_test
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.device import prepare
from storage.artifact import Artifact


def run_smoke_test(recipe: Recipe, until: str | None = None) -> dict[str, Artifact]:
    """The manifests of all artifacts; their files are deleted. Raises FlowctlError for what would fail later.

    On a GPU the batches are those of the recipe. Not tested: disk space for a whole training, and the teacher's
    sampling.
    """
    reduced = smoke_test.reduced(recipe, whole_batches=prepare(recipe.compute).type == "cuda")
    with _stopped_by_sigterm(), tempfile.TemporaryDirectory(prefix="flowctl-smoke-test-") as home:
        session = Session.open(reduced, (), until, Path(home), display())
        session.store.prepare()
        with recording(session, plan(session.nodes, session.store), command="smoke test"):
            return run_stages(session)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block at once, as Ctrl-C does: nothing is worth saving, and the store must be removed."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
