"""Curves of a training over images seen: its loss, its raw errors, and its scores while it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reporting.page import axes
from pipeline.reporting.page.axes import Axis, even_ticks, log_ticks, ticks_at
from pipeline.reporting.page.charts import SHAPES, Chart, Curve, Mark, path_through, room_for
from pipeline.reporting.text.numbers import count, significant

CALM = 0.03  # share of a training whose first, falling losses may leave the frame
SMOOTH = 9  # lines of history in the moving mean
WIDTH, HEIGHT = 420, 230  # pixels

Points = Sequence[tuple[float, float]]  # images seen and the value there
History = Sequence[dict[str, float]]


@dataclass(frozen=True)
class Line:
    """Points under one label; with `marks` each has a mark and its value as a tooltip."""

    label: str
    points: Points
    style: str
    marks: bool = False


def of_loss(history: History, what: str) -> Chart | None:
    """A training's loss, as recorded and smoothed; None where too little was recorded."""
    recorded = _recorded(history, "loss")
    lines = [Line("as recorded", recorded, "raw"), Line("moving mean", moving_mean(recorded), "s0")]
    return _drawn(lines, "training loss", f"Loss of the {what}")


def of_errors(history: History, what: str) -> Chart | None:
    """The raw errors of average velocities, split by the interval's length; None where the history has none."""
    names = {"error_instant": "r = t", "error_interval": "r < t"}
    lines = [
        Line(label, moving_mean(_recorded(history, key)), f"s{number}")
        for number, (key, label) in enumerate(names.items())
    ]
    return _drawn(lines, "squared error per dimension, unweighted", f"Raw error of the {what}")


def of_scores(history: History, names: dict[str, str], y_label: str, what: str, logarithmic: bool) -> Chart | None:
    """Scores of each average of the weights at points of the training; None where none were measured.

    Args:
        history: scores are under "score/average".
        names: score to its label.
        y_label: with its unit.
        what: the network.
        logarithmic: y axis, for positive scores.
    """
    keys = [key for key in dict.fromkeys(key for line in history for key in line) if key.split("/")[0] in names]
    averages = dict.fromkeys(key.split("/")[1] for key in keys)
    lines = []
    for number, key in enumerate(keys):
        score, average = key.split("/")
        label = ", ".join(part for part in (names[score], average if len(averages) > 1 else "") if part)
        lines.append(Line(label, _recorded(history, key), f"s{number}", marks=True))
    return _drawn(lines, y_label, f"{y_label} of the {what}", logarithmic)


def _recorded(history: History, key: str) -> Points:
    return [(line["images"], line[key]) for line in history if key in line]


def moving_mean(points: Points) -> Points:
    """Each value as the mean of those around it, of fewer at the ends."""
    half = min(SMOOTH // 2, len(points) // 8)
    means = []
    for i, (images, _) in enumerate(points):
        reach = min(half, i)  # as far back as ahead, or the steep beginning would bend
        near = [value for _, value in points[i - reach : i + reach + 1]]
        means.append((images, sum(near) / len(near)))
    return means


def _drawn(lines: Sequence[Line], y_label: str, title: str, logarithmic: bool = False) -> Chart | None:
    lines = [line for line in lines if len(line.points) > 1]
    if not lines:
        return None
    last = max(images for line in lines for images, _ in line.points)
    logarithmic = logarithmic and min(value for line in lines for _, value in line.points) > 0
    y = _height(lines, last, logarithmic)
    y_ticks = log_ticks(y) if logarithmic else even_ticks(y)
    left, right = room_for(y_ticks), WIDTH - 18
    x = Axis(0, last, left, right)
    curves = []
    for number, line in enumerate(lines):
        places = [(x.place(images), y.place(value)) for images, value in line.points]
        titles = [f"{line.label}: {significant(value)} at {count(images)} images" for images, value in line.points]
        marks = [Mark(*place, title) for place, title in zip(places, titles, strict=True)] if line.marks else []
        curves.append(Curve(line.label, line.style, SHAPES[number % len(SHAPES)], path_through(places), tuple(marks)))
    ends = "; ".join(
        f"{line.label} from {significant(line.points[0][1])} to {significant(line.points[-1][1])}" for line in lines
    )
    return Chart(
        WIDTH,
        HEIGHT,
        left,
        right,
        y.end,
        y.start,
        tuple(ticks_at(x, [share * last for share in (0, 0.5, 1)], 1, axes.thousands)),
        tuple(y_ticks),
        "images seen",
        y_label,
        tuple(curves),
        (),
        f"{title} against images seen: {ends} after {count(last)} images.",
    )


def _height(lines: Sequence[Line], last: float, logarithmic: bool) -> Axis:
    """The y axis: all values, but for the steep beginning."""
    bottom, top = HEIGHT - 40, 28
    every = [point for line in lines for point in line.points]
    low = min(value for _, value in every)
    high = max([value for images, value in every if images >= CALM * last] or [value for _, value in every])
    if logarithmic:
        return Axis(low / 1.2, high * 1.2, bottom, top, logarithmic=True)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - margin, high + margin, bottom, top)
