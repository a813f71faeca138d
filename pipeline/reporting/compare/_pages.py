"""A comparison in words: for a terminal, and for a README."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from pipeline.reporting.compare._figures import Prediction, figures
from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.compare._table import Cell, Column, Level, Table
from pipeline.reporting.page import words
from pipeline.reporting.text.numbers import count, fixed

NONE = "–"
WIDTH = 118  # of lines of prose
PREDICTS = "Does the cheap figure predict the dear one?"
MEANINGS = (
    "Transport cost (E|z − x|²/D) and Var(v | x_t, t) (mean over t and dimensions{known}) are measured on couples "
    "alone; curvature, as LOOM-CFM defines it, at 32 steps of the trained student.",
    "Seconds of the coupling are those of the teacher and its bank, or of the potentials; minibatches are coupled in "
    "the student's time.",
)
TRUE_NOISE = "z is the noise that the student was trained on; true noise scores {floor} in sliced W2{held_out}."
NOISE_TOO = "Each seed has its own networks and its own noise to sample from, and the spread is of both."


def text(
    runs: Sequence[SeedRun], made: Table, predicted: Sequence[Prediction], protocol: str, unequal: Sequence[str]
) -> str:
    """For a terminal: plain, aligned, the best of each column with a star."""
    head, rows = _scores(made, lambda cell: ("*" if cell.best else "") + cell.text)
    beside_head, beside_rows = _figures(runs)
    parts = [
        f"{made.metric} by network calls{_over(runs)}",
        _aligned(head, rows, 2),
        "\n".join(f"{_level(level)}: {level.text}" for level in made.levels),
        _lines([_marks(made, "*"), *_sampled(made)]),
        _aligned(beside_head, beside_rows, 1),
        _lines(_remarks(runs)),
    ]
    if predicted:
        parts += [_lines([_asked(predicted)]), _aligned(*_predictions(predicted), 1)]
    return "\n\n".join([*parts, _lines([f"Protocol {protocol}{_but_seeds(runs)}.", *_unequal(unequal)])])


def markdown(
    runs: Sequence[SeedRun], made: Table, predicted: Sequence[Prediction], protocol: str, unequal: Sequence[str]
) -> str:
    """For a README: the best of each column bold, teachers and floor below."""
    head, rows = _scores(made, lambda cell: f"**{cell.text}**" if cell.best else cell.text)
    head[0] = f"{made.metric} at calls"
    levels = "; ".join(f"{_level(level)} {level.text}" for level in made.levels)
    under = [f"{levels[:1].upper()}{levels[1:]}.", _marks(made, "bold"), *_sampled(made)]
    over = _over(runs).removeprefix(", ")
    if over:
        under.insert(0, f"{over[:1].upper()}{over[1:]}.")
    parts = [_piped(head, rows, 2), _filled(*under), _piped(*_figures(runs), 1), _filled(*_remarks(runs))]
    if predicted:
        parts += [_filled(_asked(predicted)), _piped(*_predictions(predicted), 1)]
    return "\n\n".join([*parts, _filled(f"Protocol `{protocol}`{_but_seeds(runs)}.", *_unequal(unequal))])


# -- the three tables, as texts --------------------------------------------------------------------------------------


def _scores(made: Table, shown: Callable[[Cell], str]) -> tuple[list[str], list[list[str]]]:
    """Heading and lines: recipe and model, a cell for each column."""
    head = [
        "recipe",
        "model",
        *(f"{column} (calls)" if isinstance(column, str) else count(column) for column in made.columns),
    ]
    return head, [
        [
            row.recipe,
            words.model(row.model) + (f", {row.way}" if row.way else ""),
            *(shown(cell) if cell else NONE for cell in row.cells),
        ]
        for row in made.rows
    ]


def _figures(runs: Sequence[SeedRun]) -> tuple[list[str], list[list[str]]]:
    columns, lines = figures(runs)
    return ["recipe", *(column.heading for column in columns)], [
        [line.recipe, *(NONE if found is None else found for found in line.texts)] for line in lines
    ]


def _predictions(predicted: Sequence[Prediction]) -> tuple[list[str], list[list[str]]]:
    dear = list(dict.fromkeys(item.dear for item in predicted))
    found = {(item.cheap, item.dear): NONE if item.rho is None else fixed(item.rho, 2) for item in predicted}
    return ["", *dear], [
        [cheap, *(found.get((cheap, name), NONE) for name in dear)]
        for cheap in dict.fromkeys(item.cheap for item in predicted)
    ]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    """The first `names` columns are words and stand left."""
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


def _piped(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    ruler = ["---"] * names + ["---:"] * (len(head) - names)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, ruler, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(sentences: Sequence[str]) -> str:
    """Each from a line of its own."""
    return "\n".join(map(_filled, sentences))


def _filled(*sentences: str) -> str:
    """One paragraph."""
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


# -- sentences -------------------------------------------------------------------------------------------------------


def _over(runs: Sequence[SeedRun]) -> str:
    """', mean ± standard deviation over 3 seeds', or nothing for one."""
    seeds = {recipe: sum(run.recipe == recipe for run in runs) for recipe in {run.recipe for run in runs}}
    low, high = min(seeds.values()), max(seeds.values())
    if high == 1:
        return ""
    return f", mean ± standard deviation over {low if low == high else f'{low} to {high}'} seeds"


def _but_seeds(runs: Sequence[SeedRun]) -> str:
    return ", apart from the seed of the noise" if len({run.protocol for run in runs}) > 1 else ""


def _level(level: Level) -> str:
    return f"{words.model(level.model)} of {level.recipe}" if level.recipe else words.model(level.model)


def _marks(made: Table, mark: str) -> str:
    better = "Lower" if made.lower_is_better else "Higher"
    return f"{better} is better, {mark} the best of its column; rounded half up."


def _sampled(made: Table) -> list[str]:
    """How the cells were sampled, where the rows do not say: 'Student: euler, uniform grid (1, 2, 4 calls).'"""
    lines = []
    for model in dict.fromkeys(row.model for row in made.rows if not row.way):
        parts = "; ".join(f"{way}{_calls(columns)}" for way, columns in made.ways[model].items())
        name = words.model(model)
        lines.append(f"{name[:1].upper()}{name[1:]}: {parts}.")
    return lines


def _calls(columns: Sequence[Column]) -> str:
    if isinstance(columns[0], str):
        return " (its mean calls in brackets)"
    return f" ({', '.join(map(count, columns))} call{'' if tuple(columns) == (1,) else 's'})"


def _remarks(runs: Sequence[SeedRun]) -> list[str]:
    noises = [run.noise for run in runs if run.noise]
    within = any(run.velocity_variance and run.velocity_variance.within_classes for run in runs)
    lines = [meaning.format(known=", given the class" * within) for meaning in MEANINGS]
    if noises:
        unseen = next((noise for noise in noises if noise.held_out is not None), None)
        held_out = f", and {fixed(unseen.held_out_floor, 3)} at the number of held-out images" if unseen else ""
        lines.append(TRUE_NOISE.format(floor=fixed(noises[0].floor, 3), held_out=held_out))
    return [*lines, NOISE_TOO] if len({run.noise_seed for run in runs}) > 1 else lines


def _asked(predicted: Sequence[Prediction]) -> str:
    most = max(predicted, key=lambda item: item.students)
    return (
        f"{PREDICTS} Spearman's rank correlation over {most.students} students of {most.recipes} recipes, "
        "1 being the same order:"
    )


def _unequal(lines: Sequence[str]) -> list[str]:
    return [f"Not on equal terms: {line}." for line in lines]
