"""The table of scores: one metric under one protocol, a row for each recipe, model and sampler setting, a column for
each number of network calls (NFE), each cell over the seeds. A report is the table of one recipe at one seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.outputs.results import Score
from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.scores.cells import Cell, Column, Level, Row, Spread, Table
from pipeline.reporting.scores.front import front
from pipeline.reporting.scores.metrics import larger_of_fewer, lower_is_better
from pipeline.reporting.scores.protocol import require_one
from pipeline.reporting.text.numbers import digits_with_errors, fixed, plain
from storage.errors import InputError
from storage.required import complete

TEACHER = "teacher"
NOISE = 2.0  # standard errors of a difference that count as noise


def settings(scores: Sequence[Score]) -> list[tuple[str, str, list[Score]]]:
    """Scores by model and sampler setting, each setting in words: 'euler, uniform grid, guidance 1.5'."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.model, setting(score, scores)), []).append(score)
    return [(model, words, group) for (model, words), group in groups.items()]


def setting(score: Score, scores: Sequence[Score]) -> str:
    """The sampler of a score in words, so that it differs from every other of its model among `scores`."""
    facts = score.protocol
    words = [score.solver]
    if facts.get("grid") and score.solver != ADAPTIVE:
        words.append(f"{facts['grid']} grid")
    if facts.get("guidance") not in (None, 0 if score.model == TEACHER else 1):  # these change no sample
        words.append(f"guidance {plain(facts['guidance'])}")
    if score.temperature != 1:
        words.append(f"temperature {plain(score.temperature)}")
    if facts.get("denoised"):
        words.append("denoised")
    siblings = [other for other in scores if (other.model, other.solver) == (score.model, score.solver)]
    for field in ("ema", "images_seen", "noise"):  # said only where it tells rows apart
        if len({plain(other.protocol.get(field)) for other in siblings}) > 1:
            words.append(f"{field.replace('_', ' ')} {plain(facts.get(field))}")
    return ", ".join(words)


def table(
    recipes: Mapping[str, Sequence[Sequence[Score]]],
    metric: str,
    yardstick: tuple[str, float] | None = None,
    joined: bool = False,
) -> Table:
    """The table of one metric.

    Args:
        recipes: by name, the scores of each seed.
        metric: of which the table is.
        yardstick: what real images score; see `yardstick_of`.
        joined: put a model's sampler settings into one row, where each column has one setting, the same in all recipes.

    Raises:
        ProtocolError: the seeds of one recipe aside, protocols differ.
        InputError: two scores claim one cell.
    """
    chosen = {name: [[s for s in scores if s.metric == metric] for scores in seeds] for name, seeds in recipes.items()}
    every = [score for seeds in chosen.values() for scores in seeds for score in scores]
    protocol = require_one([_seedless(score) for score in every] if _several(chosen) else every)
    digits = digits_with_errors(
        [*(score.value for score in every), *([] if yardstick is None else [yardstick[1]])],
        [score.error for score in every if score.error and not _several(chosen)],
    )
    groups = _grouped(chosen)
    grids = ranked_grids([_grid(score) for score in every])
    by_model: dict[str, dict[str, set[Column]]] = {}
    for (_, model, setting), cells in groups.items():
        by_model.setdefault(model, {}).setdefault(setting, set()).update(cells)
    shown = {m: {s: tuple(sorted(columns, key=order)) for s, columns in by.items()} for m, by in by_model.items()}
    if joined:
        groups = _joined(groups, shown)
    swept = {key: cells for key, cells in groups.items() if set(cells) != {0}}
    columns = tuple(sorted({column for cells in swept.values() for column in cells}, key=order))
    rows, levels = [], []
    for held_out in (False, True):
        part = tuple(
            Row(*key, tuple(_cell(cells.get(column), column, digits, grids, held_out) for column in columns), held_out)
            for key, cells in swept.items()
        )
        rows.append(_marked(part, lower_is_better(metric)))
        for key, cells in groups.items():
            cell = _cell([s for scores in cells.values() for s in scores], 0, digits, grids, held_out)
            if key not in swept and cell:
                levels.append(Level(*key, cell.spread, cell.spread.text(digits), cell.seconds, held_out))
    if yardstick is not None:
        levels.append(Level("", yardstick[0], "", Spread((yardstick[1],)), fixed(yardstick[1], digits)))
    pairs = [row for both in zip(*rows, strict=True) for row in both if not row.held_out or any(row.cells)]
    return Table(metric, digits, columns, tuple(pairs), tuple(levels), shown, protocol, tuple(grids))


_Group = dict[tuple[str, str, str], dict[Column, list[Score]]]  # by recipe, model and setting


def _several(chosen: Mapping[str, Sequence[Sequence[Score]]]) -> bool:
    return any(len(seeds) > 1 for seeds in chosen.values())


def _seedless(score: Score) -> Score:
    return score.model_copy(update={"protocol": {k: v for k, v in score.protocol.items() if k != "seed"}})


def column_of(score: Score) -> Column:
    """Its number of network calls, or the solver that chooses it."""
    return ADAPTIVE if score.solver == ADAPTIVE else score.nfe


def order(column: Column) -> tuple[bool, Column]:
    """Sorts columns: numbers of calls, then the solvers that choose them."""
    return isinstance(column, str), column


def ranked_grids(used: Sequence[str | None]) -> list[str]:
    """The time grids of scores, the most frequent first."""
    return [grid for grid, _ in sorted({g: used.count(g) for g in used if g}.items(), key=lambda item: -item[1])]


def grid_that_matters(solver: str, nfe: float, protocol: Mapping[str, Any]) -> str | None:
    """The time grid of a score; None where it changes nothing: one step is the same on all of them."""
    return None if solver == ADAPTIVE or nfe == 1 else protocol.get("grid")


def _grid(score: Score) -> str | None:
    return grid_that_matters(score.solver, score.nfe, score.protocol)


def _grouped(chosen: Mapping[str, Sequence[Sequence[Score]]]) -> _Group:
    groups: _Group = {}
    for recipe, seeds in chosen.items():
        for scores in seeds:
            for model, setting, some in settings(scores):
                columns = [column_of(score) for score in some]
                twice = [column for column in columns if columns.count(column) > 1]
                if twice:
                    raise InputError(
                        "A cell of a table must hold one number",
                        f"two for {model} of {recipe}, {setting}, {plain(twice[0])} calls",
                        "State in the protocol what tells them apart.",
                    )
                for column, score in zip(columns, some, strict=True):
                    groups.setdefault((recipe, model, setting), {}).setdefault(column, []).append(score)
    return groups


def _joined(groups: _Group, shown: Mapping[str, Mapping[str, tuple[Column, ...]]]) -> _Group:
    joined: _Group = {}
    for (recipe, model, setting), cells in groups.items():
        columns = [column for some in shown[model].values() for column in some]
        unique = len(set(columns)) == len(columns)
        joined.setdefault((recipe, model, "" if unique else setting), {}).update(cells)
    return joined


def _cell(
    scores: Sequence[Score] | None, column: Column, digits: int, grids: Sequence[str], held_out: bool
) -> Cell | None:
    scores = scores or ()
    values = complete([score.value_held_out if held_out else score.value for score in scores])
    if not values:
        return None
    seconds = complete([score.seconds_per_image for score in scores])
    other = len(grids) > 1 and any(_grid(score) not in (None, grids[0]) for score in scores)
    return Cell(
        Spread(tuple(values), _error(scores[0], held_out) if len(scores) == 1 else None),
        digits,
        statistics.fmean(score.nfe for score in scores),
        statistics.fmean(seconds) if seconds else None,
        None if held_out else _against_held_out(scores),
        column == ADAPTIVE,
        other,
    )


def _against_held_out(scores: Sequence[Score]) -> float | None:
    """A sampler may lack samples of a class for as many as there are held-out images, and of all it makes more."""
    equal = complete([score.value_at_equal_count for score in scores])
    if equal:
        return statistics.fmean(equal)
    more = any(score.protocol.get("n_fake", 0) > score.protocol.get("n_held_out", math.inf) for score in scores)
    return None if more and larger_of_fewer(scores[0].metric) else statistics.fmean(score.value for score in scores)


def _error(score: Score, held_out: bool) -> float | None:
    return score.error_held_out if held_out else score.error


def _marked(rows: tuple[Row, ...], lower: bool) -> list[Row]:
    """The best of each column, the cells within noise of it, and the front against calls; nothing where there is no
    choice."""
    points = [cell for row in rows for cell in row.cells if cell]
    on = dict(zip(map(id, points), front([c.nfe for c in points], [c.value for c in points], lower), strict=True))
    columns = []
    for column in zip(*(row.cells for row in rows), strict=True):
        cells = [cell for cell in column if cell]
        best = (min if lower else max)(cells, key=lambda cell: cell.value) if len(cells) > 1 else None
        columns.append(
            [
                cell
                and replace(
                    cell,
                    front=on[id(cell)],
                    best=best is not None and cell.rounded == best.rounded,
                    near=best is not None and cell.rounded != best.rounded and _within_noise(cell.spread, best.spread),
                )
                for cell in column
            ]
        )
    return (
        [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]
        if columns
        else list(rows)
    )


def _within_noise(one: Spread, best: Spread) -> bool:
    if one.mean_error is None or best.mean_error is None:
        return False
    return abs(one.mean - best.mean) <= NOISE * (one.mean_error**2 + best.mean_error**2) ** 0.5
