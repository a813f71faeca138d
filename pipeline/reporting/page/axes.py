"""Axes of a chart: from values to places on the page, and the round numbers to write next to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from pipeline.reporting.text.numbers import count, fixed

STEPS = 4  # on an even axis
APART = 17  # pixels between ticks of a logarithmic axis
FACTORS = ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,))  # of powers of ten


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


def ticks_at(axis: Axis, values: Iterable[float], apart: float, text: Callable[[float], str] = count) -> list[Tick]:
    """Ticks at these values, less those that would touch the one before."""
    ticks: list[Tick] = []
    for value in sorted(values):
        place = axis.place(value)
        if not ticks or abs(place - ticks[-1].place) >= apart:
            ticks.append(Tick(place, text(value)))
    return ticks


def log_ticks(axis: Axis, apart: float = APART, text: Callable[[float], str] | None = None) -> list[Tick]:
    """Round numbers on a logarithmic axis: as many multiples of powers of ten as there is room for."""
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    ticks: list[Tick] = []
    for factors in FACTORS:
        values = [float(f"{m}e{k}") for k in powers for m in factors if axis.low <= m * 10.0**k <= axis.high]
        ticks = [Tick(axis.place(v), text(v) if text else f"{v:,g}") for v in values]
        if all(abs(a.place - b.place) >= apart for a, b in pairwise(ticks)):
            break
    return ticks


def even_ticks(axis: Axis) -> list[Tick]:
    """A few multiples of 1, 2 or 5 times a power of ten."""
    span = axis.high - axis.low
    if span <= 0:
        return []
    power = math.floor(math.log10(span / STEPS))
    step = next(m * 10.0**power for m in (1, 2, 5, 10) if span / (m * 10.0**power) <= STEPS + 0.5)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [Tick(axis.place(k * step), fixed(k * step, digits)) for k in range(first, last + 1)]


def thousands(value: float) -> str:
    """Thousands as k, millions as M: 179,200 images are '179k'."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return fixed(value / size, 0 if value >= 10 * size or value % size == 0 else 1) + unit
    return fixed(value, 0)


def seconds(value: float) -> str:
    """A short time with its unit, one digit: 20 µs, 5 ms, 2 s."""
    for size, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if value < 999 * size:
            return f"{value / size:g} {unit}"
    return f"{count(value)} s"
