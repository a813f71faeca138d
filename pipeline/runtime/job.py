"""The interface of a running stage: settings, inputs, directories, progress, request to stop."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.recipe.sections import Compute, Config
from pipeline.runtime.timings import Timings
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.errors import Interrupted

SAVED = "saved.json"
PROGRESS = "progress.json"
STOP = "stop"
C = TypeVar("C", bound=Config)  # the settings of a stage


@dataclass(frozen=True)
class Saved:
    """The progress from which a stage resumes after a crash."""

    done: int
    total: int
    unit: str


def read_saved(work: Path) -> Saved | None:
    """The progress that a work directory can resume from; None if nothing is saved."""
    try:
        facts = json.loads((work / SAVED).read_bytes())
        return Saved(int(facts["done"]), int(facts["total"]), str(facts["unit"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class ProgressUpdate:
    """A moment of a stage's progress."""

    stage: str
    done: int
    total: int
    unit: str
    rate: float
    facts: Mapping[str, Any]

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate > 0 else None


Listener = Callable[[ProgressUpdate], None]


class Progress:
    """Reports a stage's progress to listeners, and in a file to other processes, at most once a second.

    Of several ranks only the first reports.
    """

    INTERVAL = 1.0  # seconds

    def __init__(self, stage: str, work: Path, listeners: tuple[Listener, ...] = (), silent: bool = False) -> None:
        self.stage, self.work, self.listeners, self.silent = stage, work, listeners, silent
        self._reported, self._began = 0.0, time.time()
        self._first: tuple[str, float, int] | None = None

    def __call__(self, done: int, total: int, unit: str, **facts: Any) -> None:
        if self.silent:
            return
        now = time.monotonic()
        if self._first is None or self._first[0] != unit or done < self._first[2]:
            self._first = (unit, now, done)
        if now - self._reported < self.INTERVAL and done < total:
            return
        self._reported = now
        elapsed = now - self._first[1]
        rate = (done - self._first[2]) / elapsed if elapsed > 0 else 0.0
        facts |= memory()
        report = ProgressUpdate(self.stage, done, total, unit, rate, facts)
        line = {
            "stage": self.stage,
            "pid": os.getpid(),
            "began": self._began,
            "time": time.time(),
            "done": done,
            "total": total,
            "unit": unit,
            "rate": rate,
            "seconds_left": report.seconds_left,
            **facts,
        }
        aside = self.work / f".{PROGRESS}.partial"
        with suppress(OSError):  # this file may be lost: a disk that is full for a moment is no reason to stop
            aside.write_text(json.dumps(line))  # no fsync
            aside.replace(self.work / PROGRESS)
        for listener in self.listeners:
            listener(report)


def read_progress(work: Path) -> ProgressUpdate | None:
    """The last progress of the process that works in `work`."""
    try:
        facts = json.loads((work / PROGRESS).read_bytes())
        fields = {name: facts.pop(name) for name in ("stage", "done", "total", "unit", "rate")}
        return ProgressUpdate(**fields, facts=facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def memory() -> dict[str, float]:
    """Peak memory of this process, MiB: resident, and of the GPU if one is used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    peaks = {"memory_mib": peak / (2**20 if sys.platform == "darwin" else 2**10)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peaks["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return peaks


def reset_peaks() -> None:
    """Let `memory` count from here, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


class StopSignal:
    """A request to stop, by a signal or the UI. Stages check it where they can save and leave."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return self.reason is not None


class StopFile(StopSignal):
    """A request to stop that reaches the ranks of a stage, on any machine that sees the work directory."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.path = work / STOP

    def request(self, reason: str) -> None:
        super().request(reason)
        self.path.write_text(reason)

    def __bool__(self) -> bool:
        if self.reason is None and self.path.exists():
            self.reason = self.path.read_text() or "on request"
        return self.reason is not None


@dataclass
class Job(Generic[C]):
    """Everything that a stage's `run(job)` may use; `config` has the type of the stage's section, C.

    `work` survives a crash; `out` becomes the artifact.

    Several ranks share one work directory (see `pipeline.runtime.ranks`); the first writes the files that belong to
    all. `monitor` is for people: curves and samples of a training, outside the artifact and never read by a stage.
    """

    stage: str
    config: C
    inputs: Mapping[str, Artifact]
    work: Path
    compute: Compute
    progress: Progress
    stop: StopSignal = field(default_factory=StopSignal)
    monitor: Path | None = None
    rank: int = 0
    timings: Timings = field(default_factory=Timings)

    @property
    def seed(self) -> int:
        """The section's seed, which is the recipe's unless the section has its own."""
        seed = getattr(self.config, "seed", None)
        if not isinstance(seed, int):
            raise TypeError(f"stage {self.stage} has no seed")
        return seed

    @property
    def out(self) -> Path:
        path = self.work / "out"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def saved(self, done: int, total: int, unit: str) -> None:
        """Record that the stage resumes from `done` after a crash."""
        if self.rank:
            return
        write_json(self.work / SAVED, {"done": done, "total": total, "unit": unit})

    def pause_point(self) -> None:
        """Raise Interrupted if a stop is requested. Call it where everything that resuming needs is on disk."""
        if self.stop:
            raise Interrupted(f"Stopped in stage {self.stage} ({self.stop.reason}). Progress is saved.")
