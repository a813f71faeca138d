"""Axes of a chart: from values to places on the page, and the round numbers to write beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.reporting.text.numbers import count, fixed

WANTED = 4  # steps on an even axis


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` laid out between two places in pixels, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


def at(axis: Axis, values: Iterable[float], apart: float) -> list[Tick]:
    """Ticks at these values, less those that would touch the one before."""
    ticks: list[Tick] = []
    for value in sorted(values):
        place = axis.place(value)
        if not ticks or abs(place - ticks[-1].place) >= apart:
            ticks.append(Tick(place, count(value)))
    return ticks


def round_ticks(axis: Axis) -> list[Tick]:
    """1, 2, 5 times powers of ten inside an axis: every one of them on a logarithmic axis, a few on an even one."""
    if axis.logarithmic:
        powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        values = [(m * 10.0**k, max(0, -k)) for k in powers for m in (1, 2, 5) if axis.low <= m * 10.0**k <= axis.high]
        return [Tick(axis.place(value), fixed(value, digits)) for value, digits in values]
    span = axis.high - axis.low
    if span <= 0:
        return []
    power = math.floor(math.log10(span / WANTED))
    step = next(m * 10.0**power for m in (1, 2, 5, 10) if span / (m * 10.0**power) <= WANTED + 0.5)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [Tick(axis.place(k * step), fixed(k * step, digits)) for k in range(first, last + 1)]


def short(value: float) -> str:
    """Thousands as k, millions as M: 179,200 images are '179k'."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return fixed(value / size, 0 if value >= 10 * size or value % size == 0 else 1) + unit
    return fixed(value, 0)
