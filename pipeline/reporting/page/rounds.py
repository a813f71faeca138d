"""Rounds of reflow, one after another: did each make the paths straighter, and the samples of few calls better?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.engine.dag import students_among
from pipeline.outputs.results import EvaluationResult, PathResult, Score
from pipeline.reporting.text import names
from pipeline.reporting.text.numbers import calls, count, digits_for, fixed, significant


@dataclass(frozen=True)
class Round:
    """A student and the one that made its pairs.

    Attributes:
        before, model: the two models.
        straightness: of both, `before` first; None where it was not measured.
        distances: by number of network calls at which both were sampled: the best value of each.
    """

    before: str
    model: str
    straightness: tuple[float, float] | None
    distances: dict[float, tuple[float, float]]

    @property
    def verdict(self) -> str | None:
        """What became worse, in a sentence; None where nothing counts against the round.

        Reflow is for few calls: the fewest calls and straightness decide. With many calls the errors of the pairs
        show, and a distance that rises only there is no failure.
        """
        worse = []
        if self.straightness is not None and self.straightness[1] > self.straightness[0]:
            was, is_now = map(significant, self.straightness)
            worse.append(f"its paths are less straight, {is_now} after {was}")
        if self.distances:
            fewest = min(self.distances)
            was, is_now = self.distances[fewest]
            if is_now > was:
                worse.append(f"with {calls(fewest)} the distance is {significant(is_now)} after {significant(was)}")
        return (
            f"The {names.model(self.model)} is worse than the {names.model(self.before)}: {'; '.join(worse)}"
            if worse
            else None
        )


def rounds(models: Sequence[str], scores: Sequence[Score], paths: Sequence[PathResult]) -> list[Round]:
    """Each of `models`, the first student and then the rounds in their order, against the one before it.

    The distance is the first metric of the scores, lower is better.
    """
    straightness = {path.model: path.straightness for path in paths}
    best = _best(scores)
    compared = []
    for before, model in pairwise(models):
        both = [nfe for nfe in sorted(best.get(model, {})) if nfe in best.get(before, {})]
        straight = (straightness[before], straightness[model]) if {before, model} <= straightness.keys() else None
        compared.append(Round(before, model, straight, {nfe: (best[before][nfe], best[model][nfe]) for nfe in both}))
    return compared


def _best(scores: Sequence[Score]) -> dict[str, dict[float, float]]:
    """By model and number of calls, the least value of the first metric over sampler settings."""
    best: dict[str, dict[float, float]] = {}
    for score in scores:
        if score.metric == scores[0].metric and score.nfe:
            at = best.setdefault(score.model, {})
            at[score.nfe] = min(score.value, at.get(score.nfe, score.value))
    return best


@dataclass(frozen=True)
class RoundRow:
    """A model: its straightness, and its distance at each number of calls, as text."""

    model: str
    straightness: str
    distances: tuple[str, ...]


@dataclass(frozen=True)
class Rounds:
    """The section of the page.

    Attributes:
        columns: numbers of calls at which every model was sampled.
        verdicts: what became worse in a round.
    """

    metric: str
    columns: tuple[str, ...]
    lines: tuple[RoundRow, ...]
    verdicts: tuple[str, ...]


def view(result: EvaluationResult) -> Rounds | None:
    """The rounds in a table; None for a recipe without any."""
    models = students_among({score.model for score in result.scores} | {path.model for path in result.paths})
    if len(models) < 2:
        return None
    compared = rounds(models, result.scores, result.paths)
    best = _best(result.scores)
    shared = sorted(set.intersection(*(set(best.get(model, {})) for model in models)))
    digits = digits_for([best[model][nfe] for model in models for nfe in shared])
    straightness = {path.model: significant(path.straightness) for path in result.paths}
    lines = tuple(
        RoundRow(model, straightness.get(model, "–"), tuple(fixed(best[model][nfe], digits) for nfe in shared))
        for model in models
    )
    verdicts = tuple(one.verdict for one in compared if one.verdict)
    return Rounds(result.scores[0].metric if result.scores else "", tuple(map(count, shared)), lines, verdicts)
