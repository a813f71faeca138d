"""The metric against network calls: means, bands over the seeds, and the adaptive solver at its mean calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.compare._words import name
from pipeline.reporting.pictures import COLOURS, default_style
from pipeline.reporting.scores.cells import Cell, Row, Table
from pipeline.reporting.text import names
from storage.atomic import replacing
from storage.errors import InputError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MARKERS = "os^Dv<>"  # the same as the colours, for print
APART = 1.25  # ratio of two ticks that do not touch


def plot(table: Table, seeds: int, path: Path) -> Path:
    """Both axes logarithmic, as PNG, SVG or PDF by the path's ending. The same numbers give the same bytes."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"A plot's name must end in {', '.join(FORMATS)}", path.name, "Choose such a name.")
    # Without the date the same numbers give the same bytes.
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with default_style():
        figure = draw(table, seeds)
        with replacing(path) as aside:
            figure.savefig(aside, format=path.suffix[1:].lower(), dpi=160, metadata=metadata[path.suffix.lower()])
    return path


def draw(table: Table, seeds: int) -> Figure:
    """The figure itself; `seeds` of each recipe, for the words above it.

    Raises InputError where there is nothing to draw, or a number has no logarithm.
    """
    from matplotlib.figure import Figure

    rows = [row for row in table.rows if not row.held_out]
    levels = [level for level in table.levels if not level.held_out]
    numbers = [cell.value for row in rows for cell in row.cells if cell]
    bad = [n for n in [*numbers, *(level.value for level in levels)] if not n > 0]
    if bad or not numbers:
        raise InputError("Logarithmic axes need positive numbers", bad[:3], "Choose another metric.")
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        _draw_row(axes, row, name(table, row), COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
    for i, level in enumerate(levels):
        style = ("--", ":", "-.")[i % 3]
        axes.axhline(level.value, color="0.45", linewidth=1, linestyle=style, label=name(table, level))
    _scale(axes, sorted({cell.nfe for row in rows for cell in row.cells if cell}))
    better = "lower" if table.lower_is_better else "higher"
    axes.set(xlabel="network calls per image (NFE)", ylabel=f"{names.metric(table.metric)} ({better} is better)")
    axes.legend(frameon=False, fontsize="small")
    notes = [f"mean of {seeds} seeds, bands from the least to the greatest"] * (seeds > 1) + [
        f"hollow: {ADAPTIVE} at its mean calls"
    ] * (ADAPTIVE in table.columns)
    axes.set_title("; ".join(notes), loc="left", fontsize="small", color="0.35")
    return figure


def _draw_row(axes: Axes, row: Row, label: str, colour: str, marker: str) -> None:
    cells = [cell for cell in row.cells if cell and not cell.chosen]
    nfe, means = [cell.nfe for cell in cells], [cell.value for cell in cells]
    axes.plot(nfe, means, color=colour, marker=marker, markersize=5, linewidth=1.6, label=label)
    low, high = ([side(cell.spread.values) for cell in cells] for side in (min, max))
    if len(cells) > 1 and low != high:
        axes.fill_between(nfe, low, high, color=colour, alpha=0.18, linewidth=0)
    for cell in row.cells:
        if cell and (cell.chosen or len(cells) == 1):
            _error_bar(axes, cell, colour)
        if cell and cell.chosen:
            axes.plot([cell.nfe], [cell.value], color=colour, marker=marker, fillstyle="none", linestyle="none")


def _error_bar(axes: Axes, cell: Cell, colour: str) -> None:
    axes.vlines(cell.nfe, min(cell.spread.values), max(cell.spread.values), color=colour, linewidth=1.2)


def _scale(axes: Axes, places: list[float]) -> None:
    """Logarithmic axes with plain numbers: at the NFE of the points, and at 1, 2, 5 times powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    ticks: list[float] = []
    for place in places:
        if not ticks or place >= APART * ticks[-1]:
            ticks.append(place)
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
