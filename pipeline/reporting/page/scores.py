"""The table of scores: one row for each way of sampling, one column for each number of network calls.

A table holds one metric under one protocol, or it is not made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.outputs.results import Score
from pipeline.reporting.page.front import front
from pipeline.reporting.text.numbers import digits_with_errors, fixed, plain
from storage.errors import InputError

TEACHER = "teacher"
ADAPTIVE = "dopri5"  # chooses its steps itself, whatever the grid
# What tells one row from another; every other field of a protocol belongs to the table as a whole.
OF_A_ROW = (
    "grid",
    "guidance",
    "annealed",
    "temperature",
    "attention_temperature",
    "denoised",
    "noise",
    "images_seen",
    "ema",
    "path",
)
OF_THE_TABLE = ("extractor", "reference", "data", "split", "n_real", "n_fake", "quantised", "resized", "labels", "seed")
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "is", "psnr", "ssim")
FRECHET = ("fid", "fd")  # the metrics whose floor the reference stage has measured


@dataclass(frozen=True)
class Cell:
    """One number.

    `error` is its standard error in words, where it has one; `seconds` what one image takes, where that is known.
    `best` marks the best of its column, equal ones after rounding included; `front` that no fewer calls do as well.
    """

    value: float
    text: str
    best: bool = False
    front: bool = False
    error: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """A model sampled one way, at the table's numbers of calls; None where it was not measured."""

    recipe: str
    model: str
    way: str
    cells: tuple[Cell | None, ...]

    def points(self, nfe: Sequence[float]) -> list[tuple[float, float]]:
        return [(n, cell.value) for n, cell in zip(nfe, self.cells, strict=True) if cell]


@dataclass(frozen=True)
class Level:
    """A number to hold the rows against: a teacher, or the floor."""

    recipe: str
    model: str
    way: str
    value: float
    text: str
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    metric: str
    digits: int
    nfe: tuple[float, ...]
    rows: tuple[Row, ...]
    teachers: tuple[Level, ...]
    floor: Level | None
    protocol: Mapping[str, Any]

    @property
    def levels(self) -> tuple[Level, ...]:
        """Teachers, then the floor where the metric has one."""
        return (*self.teachers, self.floor) if self.floor else self.teachers

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.metric)


def lower_is_better(metric: str) -> bool:
    return metric.lower().split("-")[0] not in HIGHER_IS_BETTER


def floor_of(metric: str, floor: float, floors: Mapping[str, float]) -> float | None:
    """What two halves of the real images score in a metric: the Frechet distance's floor, or one of the others."""
    return floor if metric.lower().split("-")[0] in FRECHET else floors.get(metric)


def metrics_of(scores: Iterable[Score]) -> list[str]:
    """The metrics in order of appearance; each has its own table."""
    return list(dict.fromkeys(score.metric for score in scores))


def shared(scores: Sequence[Score]) -> dict[str, Any]:
    """The fields of the protocol that all these scores have in common.

    Raises InputError where they differ in a field that a table cannot bridge.
    """
    first = dict(scores[0].protocol)
    for score in scores:
        for field in OF_THE_TABLE:
            if score.protocol.get(field) != first.get(field):
                raise InputError(
                    "Numbers of different protocols never share a table",
                    f"{field}: {plain(first.get(field))} and {plain(score.protocol.get(field))}",
                    "Evaluate again, so that all scores share one protocol",
                )
    same = {
        field: value
        for field, value in first.items()
        if all(field in score.protocol and score.protocol[field] == value for score in scores)
    }
    return {field: value for field, value in same.items() if field not in OF_A_ROW}


def table(
    by_recipe: Mapping[str, Sequence[Score]], floor: float, metric: str, floors: Mapping[str, float] | None = None
) -> Table:
    """The table of one metric over the recipes' scores. Raises InputError for mixed protocols.

    `floor` is that of the Frechet distance, `floors` those of other metrics.
    """
    chosen = {recipe: [score for score in scores if score.metric == metric] for recipe, scores in by_recipe.items()}
    everything = [score for scores in chosen.values() for score in scores]
    protocol = shared(everything)
    level = floor_of(metric, floor, floors or {})
    digits = digits_with_errors(
        [*([] if level is None else [level]), *(score.value for score in everything)],
        [score.error for score in everything if score.error],
    )
    swept = [score for score in everything if score.model != TEACHER]
    nfe = tuple(sorted({score.nfe for score in swept}))
    rows, teachers = [], []
    for recipe, scores in chosen.items():
        for model, way, group in ways(scores):
            if model == TEACHER:
                teachers += [
                    Level(recipe, model, way, s.value, fixed(s.value, digits), s.seconds_per_image) for s in group
                ]
            else:
                rows.append(_row(recipe, model, way, group, nfe, digits))
    made = Table(
        metric,
        digits,
        nfe,
        tuple(rows),
        tuple(teachers),
        None if level is None else Level("", "floor", "the floor", level, fixed(level, digits)),
        protocol,
    )
    return _marked(made)


def ways(scores: Sequence[Score]) -> list[tuple[str, str, list[Score]]]:
    """Scores grouped by how they were sampled, each with its words: 'euler, uniform grid, guidance 1.5'."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        siblings = [other for other in scores if (other.model, other.solver) == (score.model, score.solver)]
        groups.setdefault((score.model, _way(score, siblings)), []).append(score)
    return [(model, way, group) for (model, way), group in groups.items()]


def _way(score: Score, siblings: Sequence[Score]) -> str:
    facts = score.protocol
    words = [score.solver]
    if facts.get("grid") and score.solver != ADAPTIVE:
        words.append(f"{facts['grid']} grid")
    if facts.get("guidance") not in (None, 0, 1):  # 1 leaves a velocity as it is, 0 a teacher
        words.append(f"guidance {plain(facts['guidance'])}")
    if facts.get("denoised"):
        words.append("denoised")
    for field in ("ema", "images_seen", "noise"):  # said only where it tells rows apart
        if len({plain(other.protocol.get(field)) for other in siblings}) > 1:
            words.append(f"{field.replace('_', ' ')} {plain(facts.get(field))}")
    return ", ".join(words)


def _row(recipe: str, model: str, way: str, scores: Sequence[Score], nfe: Sequence[float], digits: int) -> Row:
    found: dict[float, Score] = {}
    for score in scores:
        if score.nfe in found:
            raise InputError(
                "A table has one number for each way of sampling and number of calls",
                f"two for {model}, {way}, {plain(score.nfe)} calls",
                "Name in the protocol what tells them apart",
            )
        found[score.nfe] = score
    return Row(recipe, model, way, tuple(_cell(found[n], digits) if n in found else None for n in nfe))


def _cell(score: Score, digits: int) -> Cell:
    error = "" if score.error is None else f"± {fixed(score.error, digits)}"
    return Cell(score.value, fixed(score.value, digits), error=error, seconds=score.seconds_per_image)


def _marked(made: Table) -> Table:
    """The best of each column marked, where there is something to choose from, and the front against calls."""
    choose = min if made.lower_is_better else max
    points = [point for row in made.rows for point in row.points(made.nfe)]
    costs, values = zip(*points, strict=True) if points else ((), ())
    on = {point for point, kept in zip(points, front(costs, values, made.lower_is_better), strict=True) if kept}
    best: list[str | None] = []
    for column in zip(*(row.cells for row in made.rows), strict=True):
        cells = [cell for cell in column if cell]
        best.append(choose(cells, key=lambda cell: cell.value).text if len(cells) > 1 else None)
    return replace(
        made,
        rows=tuple(
            replace(
                row,
                cells=tuple(
                    cell and replace(cell, best=cell.text == mark, front=(nfe, cell.value) in on)
                    for nfe, cell, mark in zip(made.nfe, row.cells, best, strict=True)
                ),
            )
            for row in made.rows
        ),
    )
