"""The page's curves as geometry; the template draws it. Inline SVG: sharp on paper, dark where the page is dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.reporting.page import words
from pipeline.reporting.page.axes import Axis, Tick, at, round_ticks, short
from pipeline.reporting.page.front import alike, front
from pipeline.reporting.page.scores import Table
from pipeline.reporting.text.numbers import count, significant

# Marks around their own origin, as SVG paths: circle, square, triangle, diamond.
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.8l4.6 8.2h-9.2z",
    "M0 -5.2l5.2 5.2l-5.2 5.2l-5.2 -5.2z",
)
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
    """What the template draws, all places in pixels of a picture of `width` and `height` whose y grows downwards.

    Attributes:
        left, right, top, bottom: edges of the frame; what is beyond them is cut off.
        curves: in the order of their key, each a path with its marks.
        lines: heights without a number of calls.
        alt: what the chart shows in words, for those who do not see it.
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
        marks = tuple(
            Mark(x.place(n), y.place(v), f"{words.model(row.model)}, {row.way}, {count(n)} calls: {significant(v)}")
            for n, v in points
        )
        curves.append(
            Curve(
                f"{words.model(row.model)}, {row.way}",
                f"s{number % 6}",
                SHAPES[number % len(SHAPES)],
                _path([(mark.x, mark.y) for mark in marks]),
                marks,
            )
        )
    lines = tuple(Line(words.model(level.model), level.model, y.place(level.value)) for level in levels)
    told = "; ".join(
        f"{words.model(row.model)} ({row.way}) goes from {significant(points[0][1])} at "
        f"{count(points[0][0])} to {significant(points[-1][1])} at {count(points[-1][0])} calls"
        for row, points in measured
    )
    return Chart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        tuple(at(x, calls, 20)),
        tuple(y_ticks),
        "network calls per image",
        table.metric,
        tuple(curves),
        lines,
        f"{table.metric} against network calls, both axes logarithmic. {told}."
        + (f" Floor {table.floor.text}." if table.floor else ""),
        size,
    )


def by_seconds(table: Table, width: int, height: int, size: str) -> Chart | None:
    """The metric against seconds per image on logarithmic axes, teachers too, with the Pareto front as a staircase.

    None where no two ways of sampling have a time.
    """
    named = [
        (
            row,
            [
                (cell.seconds, cell.value, nfe)
                for nfe, cell in zip(table.nfe, row.cells, strict=True)
                if cell and cell.seconds and cell.value > 0
            ],
        )
        for row in table.rows
    ]
    series = [(f"{words.model(row.model)}, {row.way}", points) for row, points in named if points]
    series += [
        (words.model(level.model), [(level.seconds, level.value, 0)])
        for level in table.teachers
        if level.seconds and level.value > 0
    ]
    every = [point for _, points in series for point in points]
    if len(every) < 2:
        return None
    right, top, bottom = width - 14, 14, height - 44
    y = Axis(min(v for _, v, _ in every) / 1.2, max(v for _, v, _ in every) * 1.2, bottom, top, logarithmic=True)
    y_ticks = round_ticks(y)
    left = _room(y_ticks)
    x = Axis(min(s for s, _, _ in every) / 1.3, max(s for s, _, _ in every) * 1.3, left, right, logarithmic=True)
    on = front([alike(s) for s, _, _ in every], [v for _, v, _ in every], table.lower_is_better)
    best = sorted({(s, v) for (s, v, _), kept in zip(every, on, strict=True) if kept})
    steps = [(x.place(best[0][0]), bottom if not table.lower_is_better else top)]
    for s, v in best:
        steps += [(x.place(s), steps[-1][1]), (x.place(s), y.place(v))]
    steps.append((right, steps[-1][1]))
    curves = [Curve("Pareto front", "front", "", _path(steps))]
    for number, (label, points) in enumerate(series):
        marks = tuple(
            Mark(
                x.place(s),
                y.place(v),
                f"{label}{f', {count(nfe)} calls' if nfe else ''}: {significant(v)} in {significant(s)} s per image",
            )
            for s, v, nfe in points
        )
        style = "teacher" if number >= len(series) - len(table.teachers) and not points[0][2] else f"s{number % 6}"
        curves.append(
            Curve(label, style, SHAPES[number % len(SHAPES)], _path([(mark.x, mark.y) for mark in marks]), marks)
        )
    # Seconds need more digits than axes of round numbers have.
    ticks = [Tick(tick.place, significant(value, 1)) for tick, value in _decades(x)]
    told = "; ".join(f"{significant(v)} in {significant(s)} s" for s, v in best)
    return Chart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        tuple(ticks),
        tuple(y_ticks),
        "seconds per image",
        table.metric,
        tuple(curves),
        (),
        f"{table.metric} against seconds per image, both axes logarithmic. The Pareto front: {told}.",
        size,
    )


def _decades(axis: Axis) -> list[tuple[Tick, float]]:
    """Ticks at powers of ten and, where these are few, at 2 and 5 times them."""
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        values = [m * 10.0**k for k in powers for m in factors if axis.low <= m * 10.0**k <= axis.high]
        if len(values) >= 3:
            break
    return [(Tick(axis.place(value), ""), value) for value in values]


def of_loss(history: Sequence[Mapping[str, float]], what: str) -> Chart | None:
    """A training's loss against images seen, as recorded and smoothed; None where too little was recorded."""
    points = [(float(line["images"]), float(line["loss"])) for line in history]
    if len(points) < 2:
        return None
    width, height = 420, 230
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
    return Chart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        tuple(ends),
        tuple(y_ticks),
        "images seen",
        "loss",
        (Curve("as recorded", "raw", "", recorded), Curve("moving mean", "s0", "", smoothed)),
        (),
        f"Loss of the {what} against images seen: from {significant(points[0][1])} to "
        f"{significant(points[-1][1])} after {count(points[-1][0])} images.",
    )


def _moving_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each loss as the mean of those around it, of fewer at the ends."""
    half = min(SMOOTH // 2, len(points) // 8)
    means = []
    for i, (images, _) in enumerate(points):
        reach = min(half, i)  # as far back as ahead, or the steep beginning would bend
        near = [loss for _, loss in points[i - reach : i + reach + 1]]
        means.append((images, sum(near) / len(near)))
    return means


def _room(ticks: Sequence[Tick]) -> float:
    """Pixels left of the frame that the longest number needs."""
    return max(46, 16 + 7.5 * max((len(tick.text) for tick in ticks), default=0))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
