"""The page's curves as geometry; the template draws it. Inline SVG: sharp on paper, dark where the page is dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.reporting.page import axes
from pipeline.reporting.page.axes import Axis, Tick, log_ticks, ticks_at
from pipeline.reporting.scores.cells import Cell, Level, Row, Table
from pipeline.reporting.scores.front import alike, front
from pipeline.reporting.text.numbers import calls, count, significant

# Marks around their own origin, as SVG paths: circle, square, triangle, diamond.
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.8l4.6 8.2h-9.2z",
    "M0 -5.2l5.2 5.2l-5.2 5.2l-5.2 -5.2z",
)
COLOURS = 6  # of the style sheet
SIZES = (("wide", 760, 400), ("narrow", 370, 320))  # class of the style sheet, width and height in pixels
TEXT = (24, 13)  # width and height in pixels of the word next to a mark


@dataclass(frozen=True)
class Mark:
    """A measured point, with the text of its tooltip, the ends of its error bar, and a word next to it."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Curve:
    label: str
    style: str
    shape: str
    path: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class LevelLine:
    """A horizontal line: a teacher, or a yardstick."""

    label: str
    style: str
    y: float


@dataclass(frozen=True)
class Chart:
    """The template's data, all places in pixels of a picture of `width` and `height` whose y grows downwards.

    Attributes:
        left, right, top, bottom: edges of the frame; curves are clipped there.
        curves: in the order of their key, each a path with its marks.
        lines: heights without a place on the x axis.
        alt: the chart in words, for screen readers.
        size: class by which the page's style sheet shows one of two charts, by the width of the screen.
    """

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    lines: tuple[LevelLine, ...]
    alt: str
    size: str = "any"


@dataclass(frozen=True)
class Point:
    """A value to draw: its cost, its least and greatest over the seeds, the text of its tooltip, a word next to it."""

    x: float
    y: float
    title: str
    low: float
    high: float
    text: str = ""


@dataclass(frozen=True)
class Series:
    """Points under one label. `style` is a class of the style sheet; empty takes the next colour."""

    label: str
    points: list[Point]
    style: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart before it is laid out: logarithmic axes, the series, horizontal lines by style, and the x ticks.

    `ticks` None takes round numbers, written by `tick_text`. `staircase` draws the Pareto front.
    """

    series: list[Series]
    x_label: str
    y_label: str
    lower: bool = True
    levels: list[tuple[str, str, float]] = field(default_factory=list)  # label, style, height
    ticks: list[float] | None = None
    tick_text: Callable[[float], str] = count
    staircase: bool = False


def by_calls(table: Table, name: Callable[[Row | Level], str]) -> Figure:
    """The metric against network calls, with the table's levels as lines."""
    series = [
        Series(name(row), [point_of(cell, cell.nfe, name(row)) for cell in cells]) for row, cells in drawable(table)
    ]
    nfe = {point.x for one in series for point in one.points}
    levels = [(name(level), level.model, level.value) for level in table.levels if not level.held_out]
    return Figure(series, "network calls per image (NFE)", table.metric, table.lower_is_better, levels, sorted(nfe))


def by_seconds(table: Table, name: Callable[[Row | Level], str]) -> Figure:
    """The metric against seconds per image, teachers too, with the Pareto front as a staircase."""
    series = [
        Series(name(row), [point_of(cell, cell.seconds, name(row)) for cell in cells if cell.seconds])
        for row, cells in drawable(table)
    ]
    for level in table.baselines:
        title = name(level)
        if level.seconds and level.value > 0:
            values = level.spread.values
            point = Point(level.seconds, level.value, f"{title}: {level.text}", min(values), max(values))
            series.append(Series(title, [point], "teacher"))
    return Figure(
        series, "seconds per image", table.metric, table.lower_is_better, tick_text=axes.seconds, staircase=True
    )


def drawn(figure: Figure) -> tuple[Chart, ...]:
    """The chart for wide and for narrow screens; none where fewer than two points can be drawn."""
    series = [one for one in figure.series if one.points]
    if sum(len(one.points) for one in series) < 2:
        return ()
    return tuple(_laid_out(figure, series, *size) for size in SIZES)


def drawable(table: Table) -> list[tuple[Row, list[Cell]]]:
    """Rows against the training images with those of their cells that have a logarithm."""
    return [
        (row, [cell for cell in row.cells if cell and cell.nfe > 0 and min(cell.spread.values) > 0])
        for row in table.rows
        if not row.held_out
    ]


def point_of(cell: Cell, x: float, name: str, text: str = "") -> Point:
    values = cell.spread.values
    time = "" if cell.seconds is None else f", {significant(cell.seconds)} s per image"
    return Point(x, cell.value, f"{name}, {calls(cell.nfe)}{time}: {cell.text}", min(values), max(values), text)


def _laid_out(figure: Figure, series: list[Series], size: str, width: int, height: int) -> Chart:
    every = [point for one in series for point in one.points]
    heights = [v for p in every for v in (p.low, p.high)] + [value for *_, value in figure.levels if value > 0]
    right, top, bottom = width - 14, 30, height - 44
    y = Axis(min(heights) / 1.2, max(heights) * 1.2, bottom, top, logarithmic=True)
    y_ticks = log_ticks(y)
    left = room_for(y_ticks)
    wide = 1.15 if figure.ticks else 1.3
    x = Axis(min(p.x for p in every) / wide, max(p.x for p in every) * wide, left, right, logarithmic=True)
    curves = [_staircase(figure, every, x, y)] if figure.staircase else []
    number, words = 0, list[Mark]()
    for one in series:
        style = one.style or f"s{number % COLOURS}"
        marks = []
        for p in one.points:
            low, high = (y.place(p.low), y.place(p.high)) if p.low < p.high else (None, None)
            marks.append(Mark(x.place(p.x), y.place(p.y), p.title, low, high, p.text))
        shape = SHAPES[number % len(SHAPES)]
        curves.append(
            Curve(one.label, style, shape, path_through([(m.x, m.y) for m in marks]), _uncrowded(marks, words))
        )
        number += not one.style
    summary = "; ".join(
        f"{one.label} goes from {significant(one.points[0].y)} to {significant(one.points[-1].y)}" for one in series
    )
    ticks = log_ticks(x, 48, figure.tick_text) if figure.ticks is None else ticks_at(x, figure.ticks, 20)
    return Chart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        tuple(ticks),
        tuple(y_ticks),
        figure.x_label,
        f"{figure.y_label} ({'lower' if figure.lower else 'higher'} is better)",
        tuple(curves),
        tuple(LevelLine(label, style, y.place(value)) for label, style, value in figure.levels if value > 0),
        f"{figure.y_label} against {figure.x_label}, both axes logarithmic. {summary}.",
        size,
    )


def _uncrowded(marks: Sequence[Mark], before: list[Mark]) -> tuple[Mark, ...]:
    """The marks without the words that would lie over earlier ones, which are in `before`, and are added there."""
    shown = []
    for mark in marks:
        taken = any(abs(mark.x - other.x) < TEXT[0] and abs(mark.y - other.y) < TEXT[1] for other in before)
        shown.append(replace(mark, text="") if taken else mark)
        if shown[-1].text:
            before.append(mark)
    return tuple(shown)


def _staircase(figure: Figure, every: list[Point], x: Axis, y: Axis) -> Curve:
    on = front([alike(p.x) for p in every], [p.y for p in every], figure.lower)
    best = sorted({(p.x, p.y) for p, optimal in zip(every, on, strict=True) if optimal})
    steps = [(x.place(best[0][0]), y.end if figure.lower else y.start)]
    for cost, value in best:
        steps += [(x.place(cost), steps[-1][1]), (x.place(cost), y.place(value))]
    return Curve("Pareto front", "front", "", path_through([*steps, (x.end, steps[-1][1])]))


def room_for(ticks: Sequence[Tick]) -> float:
    """Pixels left of the frame that the longest number needs."""
    return max(46, 16 + 7.5 * max((len(tick.text) for tick in ticks), default=0))


def path_through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
