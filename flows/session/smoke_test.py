"""The smoke test: the reduced recipe through all stages, in a temporary store, without Prefect.

Where whole batches are fast enough it also measures rates, which go to the user's store: plans then have them.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.session.display import Display, display
from flows.session.forecasts import counted
from flows.session.interrupts import asking_to_stop
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from pipeline.engine.execute import Outcome
from pipeline.engine.plan import plan
from pipeline.recipe import smoke_test
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import Training
from pipeline.runtime.device import prepare
from pipeline.runtime.job import ProgressUpdate, reset_peaks
from storage.artifact import Artifact
from storage.errors import UsageError
from storage.store import Store

if TYPE_CHECKING:
    from pipeline.cost.forecast import Forecast, StageTime

MEASURED_STEPS = 8  # of each network; the first one warms up and does not count
LONGEST = 120.0  # seconds that the steps of all networks may take together


@dataclass(frozen=True)
class SmokeTest:
    """A passed smoke test.

    Attributes:
        artifacts: the manifests by stage; their files are deleted.
        memory: peak memory by stage, MiB, of the GPU if one is used.
        times: of the stages of the whole recipe, as a plan would give them now; None for an unknown one.
        measured: whether whole batches were run, so that rates were measured.
    """

    artifacts: dict[str, Artifact]
    memory: dict[str, float]
    times: dict[str, StageTime | None]
    measured: bool


def run_smoke_test(recipe: Recipe, until: str | None = None) -> SmokeTest:
    """Raises FlowctlError for what would fail later.

    On a GPU the batches are those of the recipe; on a CPU too, where `MEASURED_STEPS` of them are fast. Not tested:
    disk space for a whole training, and the teacher's sampling.
    """
    from pipeline.cost.forecast import Forecast

    if recipe.compute.nnodes > 1:  # each would wait in its store for the others
        raise UsageError("A smoke test must run on one machine", f"{recipe.compute.nnodes}", "Give it --nnodes 1.")
    _require_temporary_directory()
    store = Store()
    full = Session.open(recipe, (), until)
    forecast = Forecast(recipe.compute, store.home, counted(full))
    whole = prepare(recipe.compute).type == "cuda" or _steps_seconds(full, forecast) < LONGEST
    reduced = smoke_test.reduced(recipe, whole, MEASURED_STEPS if whole else 1)
    with _stopped_at_once(), tempfile.TemporaryDirectory(prefix="flowctl-smoke-test-") as home:
        peaks = _Peaks(display())
        session = Session.open(reduced, (), until, Path(home), peaks)
        session.rates = store.home if whole else Path(home)
        session.store.prepare()
        with recording(session, plan(session.nodes, session.store), command="smoke test"):
            artifacts = run_stages(session)
    forecast = Forecast(recipe.compute, store.home, counted(full))
    times = {name: forecast.of_stage(node) for name, node in full.nodes.items()}
    return SmokeTest(artifacts, peaks.mib, times, whole)


def _require_temporary_directory() -> None:
    """Raises UsageError where the test's store has no place: not in the user's store, which it must leave as it is."""
    try:
        tempfile.TemporaryDirectory().cleanup()
    except OSError as error:
        remedy = "Set TMPDIR to one."
        raise UsageError("A smoke test needs a writable directory for temporary files", str(error), remedy) from None


def _steps_seconds(session: Session, forecast: Forecast) -> float:
    """Seconds that the measured steps of all networks take together; those of unknown images count as too many."""
    total = 0.0
    for node in session.nodes.values():
        training: Training | None = getattr(node.config, "training", None)
        if training is None:
            continue
        time = forecast.of_stage(node)
        if time is None:
            return LONGEST
        total += time.facts()["training_seconds"] * MEASURED_STEPS / training.steps
    return total


class _Peaks(Display):
    """Passes everything on to another display, and takes down the peak memory of each stage.

    Attributes:
        mib: by stage, of the GPU if one is used, else of the process.
    """

    def __init__(self, inner: Display) -> None:
        self._inner, self.mib = inner, dict[str, float]()

    def __enter__(self) -> Display:
        self._inner.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._inner.__exit__(*exception)

    def begin(self, stage: str) -> None:
        reset_peaks()
        self._inner.begin(stage)

    def report(self, report: ProgressUpdate) -> None:
        peak = report.facts.get("gpu_memory_mib", report.facts["memory_mib"])
        self.mib[report.stage] = max(peak, self.mib.get(report.stage, 0.0))
        self._inner.report(report)

    def end(self, stage: str, outcome: Outcome) -> None:
        self._inner.end(stage, outcome)

    def note(self, text: str) -> None:
        self._inner.note(text)


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: nothing is worth saving, and the store must be removed."""
    numbers = [number for number in asking_to_stop() if number != signal.SIGINT]

    def stop(number: int, frame: Any) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
