"""What a tracker is told of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Subject:
    """A stage of a recipe at one seed: one run of a tracker. `parameters` are flat: student.training.lr."""

    recipe: str
    seed: int
    stage: str
    kind: str
    fingerprint: str
    parameters: Mapping[str, Any]
    folder: Path  # that a tracker may write in

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.stage}"


@dataclass(frozen=True)
class Value:
    """A score: `name` contains metric, model and sampler."""

    name: str
    nfe: float
    value: float


class Tracker(Protocol):
    """One run of a tracker. Any exception is taken for a failure of the tracker, never of the stage."""

    def start(self, subject: Subject, id: str | None) -> str:
        """Start a run, or resume the one of this id; its id."""

    def curves(self, lines: list[dict[str, float]]) -> None:
        """Points of curves, each at its "images"."""

    def picture(self, path: Path, images: int) -> None:
        """Samples after so many images of the training."""

    def results(self, numbers: Mapping[str, float], scores: list[Value]) -> None:
        """The numbers of the finished stage, and the scores of an evaluation."""

    def file(self, path: Path) -> None:
        """A report."""

    def end(self, ending: Ending) -> None: ...
