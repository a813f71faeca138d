"""The data of a table of scores: cells over the seeds, rows, levels, and the marks on them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.scores.metrics import HALVES, HELD_OUT, is_frechet, lower_is_better
from pipeline.reporting.text.numbers import count, fixed

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
        against_held_out: what to hold against the score of held-out images, the mean: that of as many samples where
            they are fewer; None where it is not known.
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
    against_held_out: float | None = None
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

    @property
    def key(self) -> tuple[str, str, str]:
        return self.recipe, self.model, self.setting


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

    def to_held_out(self, row: Row, cell: Cell) -> Cell | None:
        """The score of the same samples against the held-out images; `cell` is one of `row`."""
        same = (other for other in self.rows if other.held_out and other.key == row.key)
        return next(
            (other for twin in same for ours, other in zip(row.cells, twin.cells, strict=True) if ours is cell), None
        )

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
            others = {cell.against_held_out for _, cell in self.measured if cell.against_held_out != cell.value}
            if others:
                known = "compares with that of as many samples" if others != {None} else "is no measure of the samples"
                notes.append(
                    f"They are {count(self.protocol['n_held_out'])}; with fewer images a distance is larger, so theirs "
                    f"{known}."
                )
        if kind == HALVES and is_frechet(self.metric):
            notes.append("Two halves hold half as many images each, so their distance is no floor.")
        if len(self.grids) > 1:
            notes.append(grid_note(self.grids))
        return notes


def grid_note(grids: Sequence[str]) -> str:
    """What † means."""
    return f"† is on another time grid ({', '.join(grids[1:])}) than the rest ({grids[0]})."
