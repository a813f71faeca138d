"""What the numbers say, in sentences."""

from __future__ import annotations

from pipeline.reporting.page.scores import Cell, Row, Table
from pipeline.reporting.text.numbers import calls, count

MODELS = {"student": "student", "onestep": "one-step student", "teacher": "teacher", "floor": "two halves of the data"}
FIELDS = {
    "n_real": "real images",
    "n_fake": "generated images",
    "extractor": "feature extractor",
    "reference": "reference statistics",
    "data": "data set",
    "quantised": "quantisation",
    "resized": "resizing",
    "labels": "classes drawn",
    "seed": "seed of the noise",
    "ema": "average of the weights",
    "images_seen": "images seen in training",
    "grid": "time grid",
    "denoised": "noise removed after sampling",
    "noise": "training noise η",
}


def model(name: str) -> str:
    """A model's name for readers: 'student after 2 rounds of reflow' for reflow-2."""
    kind, _, number = name.rpartition("-")
    if kind == "reflow" and number.isdecimal():
        return f"student after {number} round{'' if number == '1' else 's'} of reflow"
    return MODELS.get(name, name)


def field(name: str) -> str:
    """A protocol field's name for readers."""
    return FIELDS.get(name, name.replace("_", " "))


def headline(table: Table) -> str:
    """The result in one sentence: the fewest calls that come as near to the data as the data's own halves are."""
    floor = f"the data’s own halves differ by {table.floor.text}" if table.floor else "it has no floor"
    measured = _measured(table)
    if not measured:
        return f"No sample was measured; {floor}."
    reached = [item for item in measured if _as_good(table, item[2].value)]
    if reached:
        nfe, row, cell = reached[0]
        return f"{_sentence(calls(nfe), nfe)} {table.metric} {cell.text} with the {model(row.model)}; {floor}."
    nfe, row, cell = _best(table, measured)
    return (
        f"{_sentence(calls(nfe), nfe)} {table.metric} {cell.text} with the {model(row.model)}, the best of this "
        f"sweep; {floor}."
    )


def figures(table: Table) -> list[tuple[str, str]]:
    """The few numbers a reader looks for first: the best at one and two calls, of the sweep, the teacher, the floor."""
    measured = _measured(table)
    shown: list[tuple[str, str]] = []
    for few in (1, 2, 4):
        here = [item for item in measured if item[0] == few]
        if here:
            nfe, row, cell = _best(table, here)
            shown.append((cell.text, f"{calls(nfe)}, {model(row.model)}"))
    shown = shown[:2]
    if measured:
        nfe, row, cell = _best(table, measured)
        label = f"best of the sweep: {model(row.model)}, {count(nfe)} calls"
        if all(not told.startswith(f"{calls(nfe)}, ") for _, told in shown):
            shown.append((cell.text, label))
    shown += [(level.text, "its teacher") for level in table.teachers[:1]]
    return [*shown, *([(table.floor.text, MODELS["floor"])] if table.floor else [])]


def _sentence(subject: str, nfe: float) -> str:
    return f"{subject} {'reaches' if nfe == 1 else 'reach'}"


def _measured(table: Table) -> list[tuple[float, Row, Cell]]:
    """All numbers, fewest calls first, the better first among equals."""
    found = [(nfe, row, cell) for row in table.rows for nfe, cell in zip(table.nfe, row.cells, strict=True) if cell]
    sign = 1 if table.lower_is_better else -1
    return sorted(found, key=lambda item: (item[0], sign * item[2].value))


def _best(table: Table, measured: list[tuple[float, Row, Cell]]) -> tuple[float, Row, Cell]:
    choose = min if table.lower_is_better else max
    return choose(measured, key=lambda item: item[2].value)


def _as_good(table: Table, value: float) -> bool:
    if table.floor is None:
        return False
    return value <= table.floor.value if table.lower_is_better else value >= table.floor.value
