"""Numbers of two evaluations side by side where they share one protocol, else apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.outputs.results import EvaluationResult, Score
from pipeline.recipe.changes import Change, changes
from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.diff._operands import Side
from pipeline.reporting.scores.protocol import TRAINING, agreed


@dataclass(frozen=True)
class ScorePair:
    """One number of each side under one protocol.

    Attributes:
        a, b: the scores.
        unequal: facts of the two trainings that differ, so that the ratio is not on equal terms.
    """

    a: Score
    b: Score
    unequal: tuple[Change, ...]

    @property
    def ratio(self) -> float | None:
        """b / a; None where a is zero."""
        return self.b.value / self.a.value if self.a.value else None

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.a.model,
            "solver": self.a.solver,
            "metric": self.a.metric,
            "a": {"nfe": self.a.nfe, "value": self.a.value},
            "b": {"nfe": self.b.nfe, "value": self.b.value},
            "ratio": self.ratio,
            "unequal": [change.to_json() for change in self.unequal],
            "protocol": {name: value for name, value in self.a.protocol.items() if name not in TRAINING},
        }


@dataclass(frozen=True)
class Scores:
    """Metrics measured on both sides.

    Attributes:
        paired: numbers of both sides under one protocol.
        a, b: numbers that the other side has no equal of.
        protocol: in which fields the protocols of the two evaluations differ; "digest" where the fields do not tell.
    """

    paired: tuple[ScorePair, ...] = ()
    a: tuple[Score, ...] = ()
    b: tuple[Score, ...] = ()
    protocol: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "paired": [row.to_json() for row in self.paired],
            "apart": {side: [score.model_dump(mode="json") for score in getattr(self, side)] for side in "ab"},
            "protocol": [change.to_json() for change in self.protocol],
        }


def scores(a: Side, b: Side) -> Scores:
    """The scores of both sides, each number once. Those of one side alone are apart."""
    one, other = (_result(side) for side in (a, b))
    if one is None or other is None:
        return Scores(a=one.scores if one else (), b=other.scores if other else ())
    if one.protocol != other.protocol:
        return Scores(a=one.scores, b=other.scores, protocol=tuple(_difference(one, other)))
    paired, left = [], list(other.scores)
    for score in one.scores:
        match = _match(score, left, one.scores)
        if match is not None:
            left.remove(match)
            paired.append(ScorePair(score, match, tuple(changes(_training(score), _training(match)))))
    matched = [id(row.a) for row in paired]
    return Scores(tuple(paired), tuple(score for score in one.scores if id(score) not in matched), tuple(left))


def _result(side: Side) -> EvaluationResult | None:
    artifact = side.artifacts.get("evaluation")
    return None if artifact is None else EvaluationResult.model_validate(artifact.metrics)


def _match(score: Score, others: Sequence[Score], siblings: Sequence[Score]) -> Score | None:
    """The other side's number of the same measurement: of equal training or, if there is but one on each side, any."""
    same = [other for other in others if _measurement(other) == _measurement(score)]
    equal = [other for other in same if _training(other) == _training(score)]
    if equal:
        return equal[0]
    alone = sum(_measurement(sibling) == _measurement(score) for sibling in siblings) == 1
    return same[0] if len(same) == 1 and alone else None


def _measurement(score: Score) -> tuple[Any, ...]:
    """What two numbers must share to stand in one row. An adaptive solver's calls are a result, not a choice."""
    facts = {name: value for name, value in score.protocol.items() if name not in TRAINING}
    return score.model, score.solver, score.metric, None if score.solver == ADAPTIVE else score.nfe, facts


def _training(score: Score) -> dict[str, Any]:
    return {name: score.protocol[name] for name in TRAINING if name in score.protocol}


def _difference(one: EvaluationResult, other: EvaluationResult) -> list[Change]:
    """The fields of the protocols that differ, as far as each is the same for all scores of its evaluation."""

    a, b = agreed(one.scores), agreed(other.scores)
    both = [name for name in a if name in b]
    differing = changes({name: a[name] for name in both}, {name: b[name] for name in both})
    return differing or [Change("digest", one.protocol, other.protocol)]
