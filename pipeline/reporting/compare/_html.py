"""The comparison as one HTML page: table, charts against three costs, sample grids, diagnostics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from pipeline.reporting.compare import _words as words
from pipeline.reporting.compare._comparison import Comparison
from pipeline.reporting.compare._figures import figures
from pipeline.reporting.compare._pages import NONE, correlations
from pipeline.reporting.page.charts import Figure, Series, by_calls, by_seconds, drawable, drawn, point_of
from pipeline.reporting.page.figures import Picture, picture
from pipeline.reporting.page.page import fill
from pipeline.reporting.scores.cells import Table
from pipeline.reporting.scores.protocol import stated
from pipeline.reporting.text import names
from pipeline.reporting.text.numbers import calls, count
from storage.artifact import Artifact

UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))  # of training times, the first that fits


def comparison_page(comparison: Comparison, evaluations: Mapping[str, Artifact]) -> str:
    """The page as HTML: no script, nothing fetched, every text escaped. The same inputs give the same bytes.

    Args:
        comparison: the comparison to show.
        evaluations: by recipe, the evaluation artifact whose sample grid is shown; those of one seed start from the
            same noise.
    """
    main = comparison.table()

    def name(item: Any) -> str:
        return words.name(main, item)

    return fill(
        "comparison.html",
        recipes=list(dict.fromkeys(run.recipe for run in comparison.runs)),
        over_seeds=names.sentence(words.over_seeds(comparison.runs)),
        table=main,
        sampled=words.sampled(main),
        figures=_best(main),
        unequal=[names.sentence(line) for line in comparison.unequal],
        by_calls=drawn(by_calls(main, name)),
        by_seconds=drawn(by_seconds(main, name)),
        by_training=drawn(_by_training(comparison, main)),
        samples=_samples(evaluations),
        others=[comparison.table(metric) for metric in comparison.metrics if metric != main.metric],
        diagnostics=_diagnostics(comparison),
        remarks=words.remarks(comparison.runs),
        correlations=_correlations(comparison),
        protocol=[
            (names.sentence(names.field(field)), stated(field, value))
            for field, value in comparison.to_json()["shared"].items()
        ],
        digest=words.protocol_line(comparison.protocol, comparison.runs),
    )


def _best(table: Table) -> list[tuple[str, str]]:
    """The best at each number of calls, and how many others are within noise of it."""
    shown = []
    for column in (column for column in table.columns if not isinstance(column, str)):
        here = [(row, cell) for row, cell in table.measured if cell.nfe == column and not cell.chosen]
        best = next(((row, cell) for row, cell in here if cell.best), None)
        if best is not None:
            near = sum(cell.near for _, cell in here)
            more = f"; {near} more within noise" if near else ""
            shown.append((best[1].rounded, f"{calls(column)}: {words.name(table, best[0])}{more}"))
    return shown


def _by_training(comparison: Comparison, table: Table) -> Figure:
    """The metric against all training time that a model needs, its teacher's included; a mark for each number of calls.

    The time is the mean over the seeds.
    """
    times = {
        (row.recipe, row.model): statistics.fmean(
            run.training_seconds(row.model) for run in comparison.runs if run.recipe == row.recipe
        )
        for row, _ in table.measured
    }
    longest = max(times.values(), default=0.0)
    unit, size = next(((unit, size) for unit, size in UNITS if longest >= 3 * size), UNITS[-1])
    series = []
    for row, cells in drawable(table):
        time = times.get((row.recipe, row.model))
        if time:
            label = words.name(table, row)
            points = [point_of(cell, time / size, label, text=count(round(cell.nfe))) for cell in cells]
            series.append(Series(label, points))
    return Figure(series, f"total training time, {unit}", table.metric, table.lower_is_better)


def _samples(evaluations: Mapping[str, Artifact]) -> list[tuple[str, Picture]]:
    shown = [
        (
            recipe,
            picture(
                artifact,
                "samples.png",
                f"Grid of samples of {recipe}: a row for each model and number of network calls.",
                f"{recipe}: the same noise down each column, and at the same place of every grid.",
            ),
        )
        for recipe, artifact in evaluations.items()
    ]
    return [(recipe, item) for recipe, item in shown if item is not None]


def _diagnostics(comparison: Comparison) -> list[dict[str, str]]:
    columns, rows = figures(comparison.runs)
    heads = [column.heading for column in columns]
    return [
        {"recipe": row.recipe} | dict(zip(heads, (text or NONE for text in row.texts), strict=True)) for row in rows
    ]


def _correlations(comparison: Comparison) -> tuple[str, list[dict[str, str]]] | None:
    predicted = comparison.predictions()
    if not predicted:
        return None
    head, rows = correlations(predicted)
    most = max(predicted, key=lambda item: item.students)
    asked = words.PREDICTS.format(students=most.students, recipes=most.recipes)
    return asked, [dict(zip(("known before training", *head[1:]), row, strict=True)) for row in rows]
