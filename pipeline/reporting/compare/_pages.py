"""A comparison as text: for a terminal, and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from pipeline.reporting.compare import _words as words
from pipeline.reporting.compare._figures import Prediction, figures
from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.scores.cells import Cell, Table
from pipeline.reporting.text.markdown import piped
from pipeline.reporting.text.names import metric, model, sentence
from pipeline.reporting.text.numbers import count, fixed

NONE = "–"
WIDTH = 118  # of lines of prose

Grid = tuple[list[str], list[list[str]]]  # heading and lines


def text(
    runs: Sequence[SeedRun], table: Table, predicted: Sequence[Prediction], protocol: str, unequal: Sequence[str]
) -> str:
    """For a terminal: plain, aligned, the best of each column with a star."""
    over = words.over_seeds(runs)
    parts = [
        f"{metric(table.metric)} by network calls" + (f", {over}" if over else ""),
        _aligned(_scores(table, lambda cell: ("*" if cell.best else "") + cell.text), 2),
        "\n".join(f"{words.name(table, level)}: {level.text}" for level in table.levels if not level.held_out),
        _lines([_marks(table, "*"), *table.notes, *words.sampled(table)]),
        _aligned(_figures(runs), 1),
        _lines(words.remarks(runs)),
    ]
    if predicted:
        parts += [_lines([_predicts(predicted)]), _aligned(correlations(predicted), 1)]
    return "\n\n".join(
        [*parts, _lines([f"Protocol {words.protocol_line(protocol, runs)}.", *words.unequal_lines(unequal)])]
    )


def markdown(
    runs: Sequence[SeedRun], table: Table, predicted: Sequence[Prediction], protocol: str, unequal: Sequence[str]
) -> str:
    """For a README: the best of each column bold, teachers and yardstick below."""
    head, rows = _scores(table, lambda cell: f"**{cell.text}**" if cell.best else cell.text)
    head[0] = f"{metric(table.metric)} at NFE"
    levels = "; ".join(f"{words.name(table, level)} {level.text}" for level in table.levels if not level.held_out)
    over = words.over_seeds(runs)
    under = [*([f"{sentence(over)}."] if over else []), f"{sentence(levels)}.", _marks(table, "bold")]
    parts = [
        piped(head, rows, 2),
        _filled(*under, *table.notes, *words.sampled(table)),
        piped(*_figures(runs), 1),
        _filled(*words.remarks(runs)),
    ]
    if predicted:
        parts += [_filled(_predicts(predicted)), piped(*correlations(predicted), 1)]
    digest, _, rest = words.protocol_line(protocol, runs).partition(",")
    last = _filled(f"Protocol `{digest}`{',' * bool(rest)}{rest}.", *words.unequal_lines(unequal))
    return "\n\n".join([*parts, last])


def correlations(predicted: Sequence[Prediction]) -> Grid:
    """A line for each cheap figure, a column for each figure known after training."""
    late = list(dict.fromkeys(item.dear for item in predicted))
    rho = {(item.cheap, item.dear): NONE if item.rho is None else fixed(item.rho, 2) for item in predicted}
    cheap = dict.fromkeys(item.cheap for item in predicted)
    return ["", *late], [[early, *(rho.get((early, name), NONE) for name in late)] for early in cheap]


def _scores(table: Table, shown: Callable[[Cell], str]) -> Grid:
    """Recipe and model, then a cell for each column."""
    head = ["recipe", "model"]
    head += [f"{column} (calls)" if isinstance(column, str) else count(column) for column in table.columns]
    return head, [
        [
            row.recipe,
            model(row.model)
            + (f", {row.setting}" if row.setting else "")
            + (" against held-out images" if row.held_out else ""),
            *(shown(cell) if cell else NONE for cell in row.cells),
        ]
        for row in table.rows
    ]


def _figures(runs: Sequence[SeedRun]) -> Grid:
    columns, rows = figures(runs)
    return ["recipe", *(column.heading for column in columns)], [
        [row.recipe, *(NONE if value is None else value for value in row.texts)] for row in rows
    ]


def _predicts(predicted: Sequence[Prediction]) -> str:
    most = max(predicted, key=lambda item: item.students)
    return words.PREDICTS.format(students=most.students, recipes=most.recipes)


def _marks(table: Table, mark: str) -> str:
    better = "Lower" if table.lower_is_better else "Higher"
    return f"{better} is better, {mark} is the best of a column; rounded half up."


def _aligned(grid: Grid, names: int) -> str:
    """The first `names` columns are words and stand left."""
    head, rows = grid
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *rows)
    ]
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines)


def _lines(sentences: Sequence[str]) -> str:
    """Each sentence on a new line."""
    return "\n".join(map(_filled, sentences))


def _filled(*sentences: str) -> str:
    """One paragraph."""
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)
