"""The table of a comparison: a row for each recipe and model, a column for each number of network calls."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.outputs.results import Score
from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.compare._terms import by_recipe
from pipeline.reporting.page.scores import ADAPTIVE, TEACHER, floor_of, lower_is_better, ways
from pipeline.reporting.text.numbers import count, digits_for, fixed
from storage.errors import InputError

Column = float | str  # a number of network calls, or the solver that chooses it


@dataclass(frozen=True)
class Spread:
    """A number at each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation that the seeds are a sample of; None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, digits: int) -> str:
        """0.250 ± 0.012, or the number alone where there is one seed."""
        beside = "" if self.deviation is None else f" ± {fixed(self.deviation, digits)}"
        return fixed(self.mean, digits) + beside


@dataclass(frozen=True)
class Cell:
    """A score over the seeds. `best` marks the best mean of its column, equal ones after rounding included."""

    spread: Spread
    digits: int
    calls: float | None = None  # mean, where the solver chooses them
    best: bool = False

    @property
    def rounded(self) -> str:
        return fixed(self.spread.mean, self.digits)

    @property
    def text(self) -> str:
        return self.spread.text(self.digits) + ("" if self.calls is None else f" ({count(round(self.calls))})")


@dataclass(frozen=True)
class Row:
    """A model of a recipe; `way` only where a model is sampled in several ways at one number of calls."""

    recipe: str
    model: str
    way: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Level:
    """A number to hold the rows against: a teacher, or the floor."""

    recipe: str
    model: str
    spread: Spread
    text: str


@dataclass(frozen=True)
class Table:
    metric: str
    digits: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    levels: tuple[Level, ...]
    ways: Mapping[str, Mapping[str, tuple[Column, ...]]]  # by model, then by way: the columns so sampled

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.metric)


_Group = dict[tuple[str, str, str], dict[Column, list[Score]]]  # by recipe, model and way


def table(runs: Sequence[SeedRun], metric: str) -> Table:
    """Mean and spread of one metric over the seeds of each recipe. Raises InputError where a score is there twice."""
    groups = _grouped(runs, metric)
    told = _ways(groups)
    level = floor_of(metric, runs[0].floor, runs[0].floors)
    floor = () if level is None else (level,)
    digits = digits_for(
        [*floor, *(score.value for columns in groups.values() for scores in columns.values() for score in scores)]
    )
    columns = tuple(
        sorted(
            {column for (_, model, _), found in groups.items() if model != TEACHER for column in found},
            key=lambda column: (isinstance(column, str), column),
        )
    )
    rows = _marked(
        tuple(
            Row(recipe, model, way, tuple(_cell(found.get(column), column, digits) for column in columns))
            for (recipe, model, way), found in _merged(groups, told).items()
            if model != TEACHER
        ),
        metric,
    )
    teachers = []
    for (recipe, model, _), found in groups.items():
        if model == TEACHER:
            spread = Spread(tuple(score.value for scores in found.values() for score in scores))
            teachers.append(Level(recipe, model, spread, spread.text(digits)))
    floors = [Level("", "floor", Spread(floor), Spread(floor).text(digits))] if floor else []
    return Table(metric, digits, columns, rows, (*teachers, *floors), told)


def _grouped(runs: Sequence[SeedRun], metric: str) -> _Group:
    groups: _Group = {}
    for recipe, some in by_recipe(runs).items():
        for run in some:
            for model, way, scores in ways([score for score in run.scores if score.metric == metric]):
                columns = [ADAPTIVE if score.solver == ADAPTIVE else score.nfe for score in scores]
                if len(set(columns)) < len(columns):
                    raise InputError(
                        "A table has one number for each way of sampling and number of calls",
                        f"two for {model} of {recipe}, {way}",
                        "Name in the protocol what tells them apart",
                    )
                for column, score in zip(columns, scores, strict=True):
                    groups.setdefault((recipe, model, way), {}).setdefault(column, []).append(score)
    return groups


def _ways(groups: _Group) -> dict[str, dict[str, tuple[Column, ...]]]:
    """By model: how it is sampled, and at which columns, in all recipes together."""
    told: dict[str, dict[str, set[Column]]] = {}
    for (_, model, way), found in groups.items():
        told.setdefault(model, {}).setdefault(way, set()).update(found)
    return {model: {way: tuple(sorted(columns)) for way, columns in by_way.items()} for model, by_way in told.items()}


def _merged(groups: _Group, told: Mapping[str, Mapping[str, tuple[Column, ...]]]) -> _Group:
    """A model's ways in one row, where each column is sampled in one way only, the same in all recipes."""
    merged: _Group = {}
    for (recipe, model, way), found in groups.items():
        columns = [column for some in told[model].values() for column in some]
        one = len(set(columns)) == len(columns)
        merged.setdefault((recipe, model, "" if one else way), {}).update(found)
    return merged


def _cell(scores: Sequence[Score] | None, column: Column, digits: int) -> Cell | None:
    if not scores:
        return None
    calls = statistics.fmean(score.nfe for score in scores) if column == ADAPTIVE else None
    return Cell(Spread(tuple(score.value for score in scores)), digits, calls)


def _marked(rows: tuple[Row, ...], metric: str) -> tuple[Row, ...]:
    """The best of each column marked, where there is something to choose from."""
    choose = min if lower_is_better(metric) else max
    best: list[str | None] = []
    for column in zip(*(row.cells for row in rows), strict=True):
        cells = [cell for cell in column if cell]
        best.append(choose(cells, key=lambda cell: cell.spread.mean).rounded if len(cells) > 1 else None)
    return tuple(
        replace(
            row,
            cells=tuple(
                cell and replace(cell, best=cell.rounded == mark) for cell, mark in zip(row.cells, best, strict=True)
            ),
        )
        for row in rows
    )
