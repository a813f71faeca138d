"""Cost of an image: the samplers that no other one beats in cost and quality at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reporting.scores.cells import Cell, Level, Row, Table
from pipeline.reporting.scores.front import alike, front
from pipeline.reporting.text.names import model
from pipeline.reporting.text.numbers import count, significant


@dataclass(frozen=True)
class OnFront:
    """A sampler on one of the two fronts, all in words but the last two: whether it is on the front against network
    calls, and on that against seconds per image."""

    model: str
    setting: str
    nfe: str
    seconds: str
    value: str
    by_calls: bool
    by_seconds: bool


def front_of(table: Table) -> list[OnFront]:
    """What is on one of the two fronts, fewest seconds first. Empty where there is nothing to choose from."""
    points: list[tuple[Row | Level, Cell | Level, float, bool, str]] = [
        (row, cell, cell.nfe, cell.front, cell.rounded) for row, cell in table.measured
    ]
    points += [(level, level, 0.0, False, level.text) for level in table.baselines]
    timed = [(item, alike(item[1].seconds)) for item in points if item[1].seconds is not None]
    costs, values = [cost for _, cost in timed], [item[1].value for item, _ in timed]
    fast = [id(item) for (item, _), on in zip(timed, front(costs, values, table.lower_is_better), strict=True) if on]
    shown = [item for item in points if item[3] or id(item) in fast] if len(points) > 1 else []
    return [
        OnFront(
            model(named.model),
            named.setting,
            count(nfe) if nfe else "–",
            "–" if cell.seconds is None else significant(cell.seconds, 2),
            text,
            by_calls,
            id(item) in fast,
        )
        for item in sorted(shown, key=lambda item: (alike(item[1].seconds or 0.0), item[2], item[1].value))
        for named, cell, nfe, by_calls, text in [item]
    ]
