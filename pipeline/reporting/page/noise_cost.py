"""Cost of the noise: the student's distance from N(0, I) against that from the teacher's noise of held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.outputs.results import EvaluationResult, Score
from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.scores.cells import Cell, Column, Spread
from pipeline.reporting.scores.protocol import OF_A_ROW
from pipeline.reporting.scores.table import column_of, order, settings
from pipeline.reporting.text.numbers import digits_for
from storage.required import required


@dataclass(frozen=True)
class StartRow:
    """Distances to the held-out images by column, as text; None where this start was not sampled.

    `temperature` is the standard deviation of the Gaussian noise that samples start from; None for encoded noise.
    """

    setting: str
    temperature: float | None
    distances: tuple[str | None, ...]


@dataclass(frozen=True)
class NoiseCost:
    """The section of the page: for each sampler setting a row from N(0, I), at each temperature, and one from encoded
    noise.

    Attributes:
        samples: of each sampler.
        held_out: images that these are held against.
    """

    metric: str
    columns: tuple[Column, ...]
    rows: tuple[StartRow, ...]
    samples: int
    held_out: int

    @property
    def tempered(self) -> bool:
        """Whether some samples start from noise of another deviation than 1."""
        return any(row.temperature not in (None, 1) for row in self.rows)


def view(result: EvaluationResult) -> NoiseCost | None:
    """None where it was not measured. The first metric counts.

    Scores are paired by solver, network calls and all fields of a row but the temperature, which encoded noise lacks.
    """
    if not result.noise_cost:
        return None
    metric = result.noise_cost[0].metric
    scores = [score for score in result.noise_cost if score.metric == metric]
    encoded = [score for score in scores if "start" in score.protocol]
    gaussian = [score for score in scores if "start" not in score.protocol]
    lines: dict[tuple[str, float | None], dict[Column, Score]] = {}
    for _, setting, group in settings(encoded):
        twins = [twin for score in group for twin in gaussian if _sampler(twin) == _sampler(score)]
        for twin in sorted(twins, key=lambda score: score.temperature):
            lines.setdefault((setting, twin.temperature), {})[column_of(twin)] = twin
        lines[setting, None] = {column_of(score): score for score in group}
    columns = tuple(sorted({column_of(score) for score in encoded}, key=order))
    digits = digits_for([_distance(score) for cells in lines.values() for score in cells.values()])
    rows = [StartRow(*key, tuple(_text(cells.get(one), digits) for one in columns)) for key, cells in lines.items()]
    facts = encoded[0].protocol
    return NoiseCost(metric, columns, tuple(rows), facts["n_fake"], facts["n_held_out"])


def _sampler(score: Score) -> tuple[Any, ...]:
    facts = (score.protocol.get(field) for field in OF_A_ROW if field != "temperature")
    return (score.solver, column_of(score), *facts)


def _distance(score: Score) -> float:
    return required(score.value_held_out, "the distance to the held-out images")


def _text(score: Score | None, digits: int) -> str | None:
    if score is None:
        return None
    return Cell(Spread((_distance(score),)), digits, score.nfe, chosen=score.solver == ADAPTIVE).text
