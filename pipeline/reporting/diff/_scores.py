"""Numbers of two evaluations side by side, where one protocol made both; apart where two did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.outputs.results import EvaluationResult, Score
from pipeline.reporting.diff._operands import Side
from pipeline.reporting.diff._settings import Change, changes

# Facts of a score about the training and not the measurement: what a recipe may change without changing the ruler.
OF_TRAINING = ("images_seen", "ema", "noise", "path")


@dataclass(frozen=True)
class Beside:
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
            "protocol": {name: value for name, value in self.a.protocol.items() if name not in OF_TRAINING},
        }


@dataclass(frozen=True)
class Scores:
    """What was measured on both sides.

    Attributes:
        beside: numbers under one protocol.
        a, b: numbers that the other side has no equal of.
        protocol: in which fields the protocols of the two evaluations differ; "digest" where the fields do not tell.
    """

    beside: tuple[Beside, ...] = ()
    a: tuple[Score, ...] = ()
    b: tuple[Score, ...] = ()
    protocol: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "beside": [row.to_json() for row in self.beside],
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
    beside, left = [], list(other.scores)
    for score in one.scores:
        match = _match(score, left, one.scores)
        if match is not None:
            left.remove(match)
            beside.append(Beside(score, match, tuple(changes(_training(score), _training(match)))))
    paired = [id(row.a) for row in beside]
    return Scores(tuple(beside), tuple(score for score in one.scores if id(score) not in paired), tuple(left))


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
    facts = {name: value for name, value in score.protocol.items() if name not in OF_TRAINING}
    return score.model, score.solver, score.metric, None if score.solver == "dopri5" else score.nfe, facts


def _training(score: Score) -> dict[str, Any]:
    return {name: score.protocol[name] for name in OF_TRAINING if name in score.protocol}


def _difference(one: EvaluationResult, other: EvaluationResult) -> list[Change]:
    """The fields of the protocols that differ, as far as each is the same for all scores of its evaluation."""

    def common(found: EvaluationResult) -> dict[str, Any]:
        first = found.scores[0].protocol
        return {
            name: value
            for name, value in first.items()
            if name not in OF_TRAINING and all(score.protocol.get(name) == value for score in found.scores)
        }

    known = [name for name in common(one) if name in common(other)]
    found = changes(*({name: common(result)[name] for name in known} for result in (one, other)))
    return found or [Change("digest", one.protocol, other.protocol)]
