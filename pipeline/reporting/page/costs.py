"""What an image costs: the ways of sampling that no other one beats in cost and quality at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reporting.page import words
from pipeline.reporting.page.front import alike, front
from pipeline.reporting.page.scores import Table
from pipeline.reporting.text.numbers import count, significant


@dataclass(frozen=True)
class Way:
    """One way of sampling that is on a front.

    Attributes:
        model, way: as a table's row names them.
        calls: network calls, as text; of a teacher none.
        seconds: per image, as text.
        value: of the metric.
        by_calls, by_seconds: whether it is on the front against network calls, and on that against seconds per image.
    """

    model: str
    way: str
    calls: str
    seconds: str
    value: str
    by_calls: bool
    by_seconds: bool


def front_of(table: Table) -> tuple[Way, ...]:
    """What is on one of the two fronts, fewest seconds first. Empty where there is nothing to choose from."""
    found = [
        ((words.model(row.model), row.way), nfe, cell.seconds, cell.value, cell.text, cell.front)
        for row in table.rows
        for nfe, cell in zip(table.nfe, row.cells, strict=True)
        if cell
    ]
    found += [
        ((words.model(level.model), level.way), 0.0, level.seconds, level.value, level.text, False)
        for level in table.teachers
    ]
    timed = [item for item in found if item[2] is not None]
    on = {
        item
        for item, kept in zip(
            timed,
            front([alike(item[2]) for item in timed], [item[3] for item in timed], table.lower_is_better),
            strict=True,
        )
        if kept
    }
    shown = sorted(
        (item for item in found if item[5] or item in on), key=lambda item: (alike(item[2]) or 0.0, item[1], item[3])
    )
    return (
        tuple(
            Way(
                *name,
                count(nfe) if nfe else "–",
                "–" if seconds is None else significant(seconds, 2),
                text,
                called,
                (name, nfe, seconds, value, text, called) in on,
            )
            for name, nfe, seconds, value, text, called in shown
        )
        if len(found) > 1
        else ()
    )
