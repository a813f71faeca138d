"""The result in one sentence, and the few numbers that a reader looks for first."""

from __future__ import annotations

from pipeline.reporting.scores.cells import Cell, Row, Table
from pipeline.reporting.scores.metrics import HELD_OUT
from pipeline.reporting.text.names import model
from pipeline.reporting.text.numbers import calls, fixed


def headline(table: Table) -> str:
    """The fewest calls that come as near to the training images as held-out images are, at equal numbers of images
    (where such a score is not known, none does); else the best of the sweep."""
    level = table.yardstick
    real = f"; {model(level.model)} {'are at' if level.model == HELD_OUT else 'score'} {level.text}" if level else ""
    measured = sorted(table.measured, key=lambda item: (item[1].nfe, _worth(table, item[1].value)))
    if not measured:
        return f"No sample was measured{real}."
    reached = [item for item in measured if level and _reaches(table, item[1].against_held_out, level.value)]
    row, cell = reached[0] if reached else _best(table, measured)
    as_many = cell.against_held_out
    if level and as_many is not None and as_many != cell.value:
        real += f", as many samples at {fixed(as_many, cell.digits)}"
    held_out = table.to_held_out(row, cell)
    both = f" to the training and {held_out.rounded} to the held-out images," if held_out else ""
    return (
        f"{calls(cell.nfe)} {'reaches' if cell.nfe == 1 else 'reach'} {table.metric} {cell.rounded}{both} with the "
        f"{model(row.model)}{'' if reached else ', the best of this sweep'}{real}."
    )


def figures(table: Table) -> list[tuple[str, str]]:
    """The best at two of one, two and four calls, the best of the sweep, the teacher, the yardstick."""
    shown: dict[float, tuple[str, str]] = {}
    for few in (1, 2, 4):
        here = [item for item in table.measured if item[1].nfe == few]
        if here and len(shown) < 2:
            row, cell = _best(table, here)
            shown[few] = (cell.rounded, f"{calls(few)}, {model(row.model)}")
    if table.measured:
        row, cell = _best(table, table.measured)
        shown.setdefault(cell.nfe, (cell.rounded, f"best of the sweep: {model(row.model)}, {calls(cell.nfe)}"))
    levels = [*table.baselines[:1], *([table.yardstick] if table.yardstick else [])]
    return [*shown.values(), *((level.text, model(level.model)) for level in levels)]


def _reaches(table: Table, value: float | None, level: float) -> bool:
    return value is not None and _worth(table, value) <= _worth(table, level)


def _worth(table: Table, value: float) -> float:
    """Less is better."""
    return value if table.lower_is_better else -value


def _best(table: Table, measured: list[tuple[Row, Cell]]) -> tuple[Row, Cell]:
    return min(measured, key=lambda item: _worth(table, item[1].value))
