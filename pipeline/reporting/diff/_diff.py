"""All differences of two sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.reporting.diff._operands import Side
from pipeline.reporting.diff._scores import Scores, scores
from pipeline.reporting.diff._settings import Change, settings
from pipeline.reporting.diff._stages import Origin, StagePair, origins, stage_pairs


@dataclass(frozen=True)
class Diff:
    """What differs between A and B, and what they have in common."""

    a: str
    b: str
    settings: tuple[Change, ...]
    stages: tuple[StagePair, ...]
    origins: tuple[Origin, ...]
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """A plain tree for `json.dump`: nothing rounded, nothing cut."""
        return {
            "a": self.a,
            "b": self.b,
            "settings": [change.to_json() for change in self.settings],
            "stages": [pair.to_json() for pair in self.stages],
            "provenance": [origin.to_json() for origin in self.origins],
            "scores": self.scores.to_json(),
        }


def diff(a: Side, b: Side) -> Diff:
    """Compare two sides. Stages without a result are compared by their identity; scores need both evaluations."""
    pairs = stage_pairs(a, b)
    return Diff(a.name, b.name, tuple(settings(a, b)), tuple(pairs), tuple(origins(pairs)), scores(a, b))
