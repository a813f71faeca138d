"""The page's curves as geometry; the template draws it. Inline SVG: sharp on paper, dark where the page is dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report import words
from pipeline.report.axes import Axis, Tick, at, round_ticks, short
from pipeline.report.numbers import count, significant
from pipeline.report.scores import Table

# Marks around their own origin, as SVG paths: circle, square, triangle, diamond.
SHAPES = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.6 -3.6h7.2v7.2h-7.2z", "M0 -4.8l4.6 8.2h-9.2z",
          "M0 -5.2l5.2 5.2l-5.2 5.2l-5.2 -5.2z")
CALM = 0.03  # share of a training whose first, falling losses may leave the frame
SMOOTH = 9  # lines of history in the moving mean


@dataclass(frozen=True)
class Mark:
    """A measured point, with what a pointer resting on it is told."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Curve:
    label: str
    style: str
    shape: str
    path: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Line:
    """A horizontal line: a teacher, or the floor."""

    label: str
    style: str
    y: float


@dataclass(frozen=True)
class Chart:
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
    lines: tuple[Line, ...]
    alt: str
    size: str = "any"


def by_calls(table: Table, width: int, height: int, size: str) -> Chart | None:
    """The metric against network calls on logarithmic axes; None where there is nothing positive to draw."""
    measured = [(row, [p for p in row.points(table.nfe) if p[0] > 0 and p[1] > 0]) for row in table.rows]
    measured = [(row, points) for row, points in measured if points]
    levels = [level for level in table.levels if level.value > 0]
    values = [y for _, points in measured for _, y in points] + [level.value for level in levels]
    if not measured:
        return None
    right, top, bottom = width - 14, 14, height - 44
    y = Axis(min(values) / 1.2, max(values) * 1.2, bottom, top, logarithmic=True)
    y_ticks = round_ticks(y)
    left = _room(y_ticks)
    calls = sorted({x for _, points in measured for x, _ in points})
    x = Axis(calls[0] / 1.15, calls[-1] * 1.15, left, right, logarithmic=True)
    curves = []
    for number, (row, points) in enumerate(measured):
        marks = tuple(Mark(x.place(n), y.place(v), f"{words.model(row.model)}, {row.way}, {count(n)} calls: "
                                                   f"{significant(v)}") for n, v in points)
        curves.append(Curve(f"{words.model(row.model)}, {row.way}", f"s{number % 6}", SHAPES[number % len(SHAPES)],
                            _path([(mark.x, mark.y) for mark in marks]), marks))
    lines = tuple(Line(words.model(level.model), level.model, y.place(level.value)) for level in levels)
    told = "; ".join(f"{words.model(row.model)} ({row.way}) goes from {significant(points[0][1])} at "
                     f"{count(points[0][0])} to {significant(points[-1][1])} at {count(points[-1][0])} calls"
                     for row, points in measured)
    return Chart(width, height, left, right, top, bottom, tuple(at(x, calls, 20)), tuple(y_ticks),
                 "network calls per image", table.metric, tuple(curves), lines,
                 f"{table.metric} against network calls, both axes logarithmic. {told}. "
                 f"Floor {table.floor.text}.", size)


def of_loss(history: Sequence[Mapping[str, float]], what: str, width: int = 420, height: int = 230) -> Chart | None:
    """A training's loss against images seen, as recorded and smoothed; None where too little was recorded."""
    points = [(float(line["images"]), float(line["loss"])) for line in history]
    if len(points) < 2:
        return None
    right, top, bottom = width - 18, 12, height - 40
    calm = [loss for images, loss in points if images >= CALM * points[-1][0]] or [loss for _, loss in points]
    low, high = min(loss for _, loss in points), max(calm)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    y = Axis(low - margin, high + margin, bottom, top)
    y_ticks = round_ticks(y)
    left = _room(y_ticks)
    x = Axis(0, points[-1][0], left, right)
    ends = [Tick(x.place(share * points[-1][0]), short(share * points[-1][0])) for share in (0, 0.5, 1)]
    recorded = _path([(x.place(images), y.place(loss)) for images, loss in points])
    smoothed = _path([(x.place(images), y.place(loss)) for images, loss in _moving_mean(points)])
    return Chart(width, height, left, right, top, bottom, tuple(ends), tuple(y_ticks), "images seen", "loss",
                 (Curve("as recorded", "raw", "", recorded), Curve("moving mean", "s0", "", smoothed)), (),
                 f"Loss of the {what} against images seen: from {significant(points[0][1])} to "
                 f"{significant(points[-1][1])} after {count(points[-1][0])} images.")


def _moving_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each loss as the mean of those around it, of fewer at the ends."""
    half = min(SMOOTH // 2, len(points) // 8)
    means = []
    for i, (images, _) in enumerate(points):
        reach = min(half, i)  # as far back as ahead, or the steep beginning would bend
        near = [loss for _, loss in points[i - reach:i + reach + 1]]
        means.append((images, sum(near) / len(near)))
    return means


def _room(ticks: Sequence[Tick]) -> float:
    """Pixels left of the frame that the longest number needs."""
    return max(46, 16 + 7.5 * max((len(tick.text) for tick in ticks), default=0))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
