"""The metric against network calls: means, bands over the seeds, and the adaptive solver at its mean calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.reporting.compare._table import Cell, Level, Row, Table
from pipeline.reporting.page import words
from pipeline.reporting.page.scores import ADAPTIVE
from storage.atomic import replacing
from storage.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def plot(made: Table, seeds: int, path: Path) -> Path:
    """Both axes logarithmic, as PNG, SVG or PDF by the path's ending. The same numbers give the same bytes."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError("A plot is a picture file", path.name, f"End its name in {', '.join(FORMATS)}")
    import matplotlib

    figure = draw(made, seeds)
    # The salt and the missing date make the same numbers the same bytes.
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with replacing(path) as aside, matplotlib.rc_context({"svg.hashsalt": "flowctl"}):
        figure.savefig(aside, format=path.suffix[1:].lower(), dpi=160, metadata=metadata[path.suffix.lower()])
    return path


def draw(made: Table, seeds: int) -> Figure:
    """The figure itself; `seeds` of each recipe, for the words above it."""
    from pipeline.reporting.pictures import curves

    rows = {_name(made, row): row for row in made.rows}
    series = {name: [(column, cell.spread.mean) for column, cell in _fixed(made, row)] for name, row in rows.items()}
    figure = curves(series, y=made.metric, levels={_level(level): level.spread.mean for level in made.levels})
    axes = figure.axes[0]
    colours = {line.get_label(): line.get_color() for line in axes.lines}
    markers = {line.get_label(): line.get_marker() for line in axes.lines}
    hollow = False
    for name, row in rows.items():
        cells = _fixed(made, row)
        if seeds > 1 and len(cells) > 1:
            axes.fill_between(
                [column for column, _ in cells],
                [min(cell.spread.values) for _, cell in cells],
                [max(cell.spread.values) for _, cell in cells],
                color=colours[name],
                alpha=0.18,
                linewidth=0,
            )
        for column, cell in zip(made.columns, row.cells, strict=True):
            if cell and (column == ADAPTIVE or len(cells) == 1):
                axes.vlines(
                    cell.calls or column,
                    min(cell.spread.values),
                    max(cell.spread.values),
                    color=colours[name],
                    linewidth=1.2,
                )
            if cell and column == ADAPTIVE:
                hollow = True
                axes.plot(
                    [cell.calls],
                    [cell.spread.mean],
                    color=colours[name],
                    marker=markers[name],
                    markersize=6,
                    fillstyle="none",
                    linestyle="none",
                )
    told = [f"mean of {seeds} seeds, bands from the least to the greatest"] * (seeds > 1) + [
        f"hollow: {ADAPTIVE} at its mean calls"
    ] * hollow
    if told:
        axes.set_title("; ".join(told), loc="left", fontsize="small", color="0.35")
    return figure


def _fixed(made: Table, row: Row) -> list[tuple[float, Cell]]:
    """A row's cells at chosen numbers of calls."""
    return [(column, cell) for column, cell in zip(made.columns, row.cells, strict=True) if cell and column != ADAPTIVE]


def _name(made: Table, row: Row) -> str:
    """The model only where it is not the student, the way of sampling only where it tells rows apart."""
    model = "" if row.model == "student" else f", {words.model(row.model)}"
    alone = sum((other.recipe, other.model) == (row.recipe, row.model) for other in made.rows) == 1
    return row.recipe + model + ("" if alone else f", {row.way}")


def _level(level: Level) -> str:
    return f"{words.model(level.model)} of {level.recipe}" if level.recipe else words.model(level.model)
