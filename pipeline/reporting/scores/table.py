"""The table of scores: one metric under one protocol, a row for each recipe, model and sampler setting, a column for
each number of network calls (NFE), each cell over the seeds. A report is the table of one recipe at one seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.outputs.results import Score
from pipeline.reporting.scores.front import front
from pipeline.reporting.scores.protocol import require_one
from pipeline.reporting.text.numbers import count, digits_with_errors, fixed, plain
from storage.errors import InputError

TEACHER = "teacher"
ADAPTIVE = "dopri5"  # chooses its steps itself, whatever the grid
HELD_OUT, HALVES = "held-out", "halves"  # yardsticks: levels that are no model
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "is", "psnr", "ssim")
FRECHET = ("fid", "fd")
NOISE = 2.0  # standard errors of a difference that count as noise

Column = float | str  # a number of network calls, or the solver that chooses it


@dataclass(frozen=True)
class Spread:
    """A number at each seed; with a single seed `error` is its own standard error, where it has one."""

    values: tuple[float, ...]
    error: float | None = None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds; None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def mean_error(self) -> float | None:
        """The standard error of the mean; None where neither seeds nor the metric give one."""
        return self.error if self.deviation is None else self.deviation / len(self.values) ** 0.5

    def text(self, digits: int) -> str:
        """0.250 ± 0.012: the deviation over seeds, or the one seed's standard error, or the number alone."""
        width = self.error if self.deviation is None else self.deviation
        return fixed(self.mean, digits) + ("" if width is None else f" ± {fixed(width, digits)}")


@dataclass(frozen=True)
class Cell:
    """One score over the seeds.

    Attributes:
        nfe: network calls, the mean where the solver chooses them.
        seconds: that one image takes, the mean; None where it is not known.
        chosen: whether the solver chose the number of calls.
        other_grid: its time grid is not the one that most cells of the table have.
        best: the best mean of its column, equal ones after rounding included.
        near: not the best, but within noise of it: two standard errors of the difference.
        front: no fewer calls do as well.
    """

    spread: Spread
    digits: int
    nfe: float
    seconds: float | None = None
    chosen: bool = False
    other_grid: bool = False
    best: bool = False
    near: bool = False
    front: bool = False

    @property
    def value(self) -> float:
        return self.spread.mean

    @property
    def rounded(self) -> str:
        return fixed(self.value, self.digits)

    @property
    def text(self) -> str:
        """The number with its annotations: calls that a solver chose, a mark of noise, a mark of the grid."""
        calls = f" ({count(round(self.nfe))})" if self.chosen else ""
        return self.spread.text(self.digits) + calls + "≈" * self.near + "†" * self.other_grid


@dataclass(frozen=True)
class Row:
    """A model of a recipe against the training images, or against the held-out ones; cells by column.

    `setting` is in words, empty where one row joins several sampler settings.
    """

    recipe: str
    model: str
    setting: str
    cells: tuple[Cell | None, ...]
    held_out: bool = False


@dataclass(frozen=True)
class Level:
    """A number to hold the rows against: a model that makes no network calls, or a yardstick of the data."""

    recipe: str
    model: str
    setting: str
    spread: Spread
    text: str
    seconds: float | None = None
    held_out: bool = False

    @property
    def value(self) -> float:
        return self.spread.mean


@dataclass(frozen=True)
class Table:
    """`settings` holds, by model and then by sampler setting, the columns that were sampled so."""

    metric: str
    digits: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    levels: tuple[Level, ...]
    settings: Mapping[str, Mapping[str, tuple[Column, ...]]]
    protocol: Mapping[str, Any]
    grids: tuple[str, ...]

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.metric)

    @property
    def baselines(self) -> tuple[Level, ...]:
        """Models without a number of calls, against the training images: teachers, enlarged images."""
        return tuple(level for level in self.levels if level.model not in (HELD_OUT, HALVES) and not level.held_out)

    @property
    def yardstick(self) -> Level | None:
        """What real images score, where it was measured."""
        return next((level for level in self.levels if level.model in (HELD_OUT, HALVES)), None)

    @property
    def measured(self) -> list[tuple[Row, Cell]]:
        """All cells against the training images."""
        return [(row, cell) for row in self.rows if not row.held_out for cell in row.cells if cell]

    @property
    def has_held_out(self) -> bool:
        return any(row.held_out for row in self.rows)

    @property
    def notes(self) -> list[str]:
        """Notes on these marks and levels, one sentence each."""
        notes = []
        if any(cell and cell.near for row in self.rows for cell in row.cells):
            notes.append("≈ is within noise of the best: two standard errors of the difference.")
        if self.has_held_out:
            notes.append("Rows without a remark are against the training images.")
        kind = self.yardstick and self.yardstick.model
        if kind == HELD_OUT:
            notes.append("Held-out images: their distance to the training images, the yardstick.")
        if kind == HALVES and _frechet(self.metric):
            notes.append("Two halves hold half as many images each, so their distance is no floor.")
        if len(self.grids) > 1:
            notes.append(grid_note(self.grids))
        return notes


def lower_is_better(metric: str) -> bool:
    return metric.lower().split("-")[0] not in HIGHER_IS_BETTER


def _frechet(metric: str) -> bool:
    return metric.lower().split("-")[0] in FRECHET


def metrics_of(scores: Iterable[Score]) -> list[str]:
    """The metrics in the order of their weight: paired ones first, for they measure the very image that was asked for;
    else in order of appearance."""
    metrics = dict.fromkeys(score.metric for score in scores)
    return sorted(metrics, key=lambda metric: metric not in ("PSNR", "SSIM"))


def yardstick_of(
    metric: str, held_out: Mapping[str, float], floor: float, floors: Mapping[str, float]
) -> tuple[str, float] | None:
    """Name and value of what real images score: held-out images; where that was not measured, two halves of the others.

    Two halves hold half as many images each, so that their Frechet distance is too large to be a floor.
    """
    if metric in held_out:
        return HELD_OUT, held_out[metric]
    if _frechet(metric):
        return HALVES, floor
    return (HALVES, floors[metric]) if metric in floors else None


def settings(scores: Sequence[Score]) -> list[tuple[str, str, list[Score]]]:
    """Scores by model and sampler setting, each setting in words: 'euler, uniform grid, guidance 1.5'."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        siblings = [other for other in scores if (other.model, other.solver) == (score.model, score.solver)]
        groups.setdefault((score.model, _setting(score, siblings)), []).append(score)
    return [(model, setting, group) for (model, setting), group in groups.items()]


def table(
    recipes: Mapping[str, Sequence[Sequence[Score]]],
    metric: str,
    yardstick: tuple[str, float] | None = None,
    joined: bool = False,
) -> Table:
    """The table of one metric.

    Args:
        recipes: by name, the scores of each seed.
        metric: of which the table is.
        yardstick: what real images score; see `yardstick_of`.
        joined: put a model's sampler settings into one row, where each column has one setting, the same in all recipes.

    Raises:
        ProtocolError: the seeds of one recipe aside, protocols differ.
        InputError: two scores claim one cell.
    """
    chosen = {name: [[s for s in scores if s.metric == metric] for scores in seeds] for name, seeds in recipes.items()}
    every = [score for seeds in chosen.values() for scores in seeds for score in scores]
    protocol = require_one([_seedless(score) for score in every] if _several(chosen) else every)
    digits = digits_with_errors(
        [*(score.value for score in every), *([] if yardstick is None else [yardstick[1]])],
        [score.error for score in every if score.error and not _several(chosen)],
    )
    groups = _grouped(chosen)
    grids = ranked_grids([_grid(score) for score in every])
    by_model: dict[str, dict[str, set[Column]]] = {}
    for (_, model, setting), cells in groups.items():
        by_model.setdefault(model, {}).setdefault(setting, set()).update(cells)
    shown = {m: {s: tuple(sorted(columns, key=_order)) for s, columns in by.items()} for m, by in by_model.items()}
    if joined:
        groups = _joined(groups, shown)
    swept = {key: cells for key, cells in groups.items() if set(cells) != {0}}
    columns = tuple(sorted({column for cells in swept.values() for column in cells}, key=_order))
    rows, levels = [], []
    for held_out in (False, True):
        part = tuple(
            Row(*key, tuple(_cell(cells.get(column), column, digits, grids, held_out) for column in columns), held_out)
            for key, cells in swept.items()
        )
        rows.append(_marked(part, lower_is_better(metric)))
        for key, cells in groups.items():
            cell = _cell([s for scores in cells.values() for s in scores], 0, digits, grids, held_out)
            if key not in swept and cell:
                levels.append(Level(*key, cell.spread, cell.spread.text(digits), cell.seconds, held_out))
    if yardstick is not None:
        levels.append(Level("", yardstick[0], "", Spread((yardstick[1],)), fixed(yardstick[1], digits)))
    pairs = [row for both in zip(*rows, strict=True) for row in both if not row.held_out or any(row.cells)]
    return Table(metric, digits, columns, tuple(pairs), tuple(levels), shown, protocol, tuple(grids))


_Group = dict[tuple[str, str, str], dict[Column, list[Score]]]  # by recipe, model and setting


def _several(chosen: Mapping[str, Sequence[Sequence[Score]]]) -> bool:
    return any(len(seeds) > 1 for seeds in chosen.values())


def _seedless(score: Score) -> Score:
    return score.model_copy(update={"protocol": {k: v for k, v in score.protocol.items() if k != "seed"}})


def _order(column: Column) -> tuple[bool, Column]:
    return isinstance(column, str), column


def ranked_grids(used: Sequence[str | None]) -> list[str]:
    """The time grids of scores, the most frequent first."""
    return [grid for grid, _ in sorted({g: used.count(g) for g in used if g}.items(), key=lambda item: -item[1])]


def grid_that_matters(solver: str, nfe: float, protocol: Mapping[str, Any]) -> str | None:
    """The time grid of a score; None where it changes nothing: one step is the same on all of them."""
    return None if solver == ADAPTIVE or nfe == 1 else protocol.get("grid")


def grid_note(grids: Sequence[str]) -> str:
    """What † means."""
    return f"† is on another time grid ({', '.join(grids[1:])}) than the rest ({grids[0]})."


def _grid(score: Score) -> str | None:
    return grid_that_matters(score.solver, score.nfe, score.protocol)


def _setting(score: Score, siblings: Sequence[Score]) -> str:
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


def _grouped(chosen: Mapping[str, Sequence[Sequence[Score]]]) -> _Group:
    groups: _Group = {}
    for recipe, seeds in chosen.items():
        for scores in seeds:
            for model, setting, some in settings(scores):
                columns = [ADAPTIVE if score.solver == ADAPTIVE else score.nfe for score in some]
                twice = [column for column in columns if columns.count(column) > 1]
                if twice:
                    raise InputError(
                        "A cell of a table must hold one number",
                        f"two for {model} of {recipe}, {setting}, {plain(twice[0])} calls",
                        "State in the protocol what tells them apart.",
                    )
                for column, score in zip(columns, some, strict=True):
                    groups.setdefault((recipe, model, setting), {}).setdefault(column, []).append(score)
    return groups


def _joined(groups: _Group, shown: Mapping[str, Mapping[str, tuple[Column, ...]]]) -> _Group:
    joined: _Group = {}
    for (recipe, model, setting), cells in groups.items():
        columns = [column for some in shown[model].values() for column in some]
        unique = len(set(columns)) == len(columns)
        joined.setdefault((recipe, model, "" if unique else setting), {}).update(cells)
    return joined


def _cell(
    scores: Sequence[Score] | None, column: Column, digits: int, grids: Sequence[str], held_out: bool
) -> Cell | None:
    values = [score.value_held_out if held_out else score.value for score in scores or ()]
    if not values or None in values:
        return None
    seconds = [score.seconds_per_image for score in scores]
    other = len(grids) > 1 and any(_grid(score) not in (None, grids[0]) for score in scores)
    return Cell(
        Spread(tuple(values), _error(scores[0], held_out) if len(scores) == 1 else None),
        digits,
        statistics.fmean(score.nfe for score in scores),
        None if None in seconds else statistics.fmean(seconds),
        column == ADAPTIVE,
        other,
    )


def _error(score: Score, held_out: bool) -> float | None:
    return score.error_held_out if held_out else score.error


def _marked(rows: tuple[Row, ...], lower: bool) -> list[Row]:
    """The best of each column, the cells within noise of it, and the front against calls; nothing where there is no
    choice."""
    points = [cell for row in rows for cell in row.cells if cell]
    on = dict(zip(map(id, points), front([c.nfe for c in points], [c.value for c in points], lower), strict=True))
    columns = []
    for column in zip(*(row.cells for row in rows), strict=True):
        cells = [cell for cell in column if cell]
        best = (min if lower else max)(cells, key=lambda cell: cell.value) if len(cells) > 1 else None
        columns.append(
            [
                cell
                and replace(
                    cell,
                    front=on[id(cell)],
                    best=best is not None and cell.rounded == best.rounded,
                    near=best is not None and cell.rounded != best.rounded and _within_noise(cell.spread, best.spread),
                )
                for cell in column
            ]
        )
    return (
        [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]
        if columns
        else list(rows)
    )


def _within_noise(one: Spread, best: Spread) -> bool:
    if one.mean_error is None or best.mean_error is None:
        return False
    return abs(one.mean - best.mean) <= NOISE * (one.mean_error**2 + best.mean_error**2) ** 0.5
