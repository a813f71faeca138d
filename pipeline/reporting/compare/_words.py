"""The sentences of a comparison, the same on a terminal, in Markdown and on its page."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.scores.cells import Column, Level, Row, Table
from pipeline.reporting.text.names import model, sentence
from pipeline.reporting.text.numbers import count, fixed

MEANINGS = (
    "Transport cost (E|z − x|²/D) and Var(v | x_t, t) (mean over t and dimensions{known}) are measured on pairs (x, z) "
    "before training; curvature, as LOOM-CFM defines it, at 32 steps of the trained student.",
    "Seconds of the coupling are those of the teacher and its bank, or of the potentials; minibatches are coupled in "
    "the student's time.",
)
LEAK = (
    "Class from z: how much more often than by chance a small classifier tells the class from the noise alone, in "
    "percentage points; where there is nothing to find its standard error is {error}."
)
GAUSSIAN = "z is the noise that the student was trained on; Gaussian noise scores {floor} in sliced W2{held_out}."
SEEDS = "Each seed has other networks and other noise to sample from; the spread is of both."
PREDICTS = (
    "Do cheap coupling statistics predict sample quality? Spearman's rank correlation over {students} students of "
    "{recipes} recipes; 1 is the same order."
)


def name(table: Table, item: Row | Level) -> str:
    """A row or level in a chart: the model only where it is not the student, the setting only where it tells apart."""
    if isinstance(item, Level):
        return f"{model(item.model)} of {item.recipe}" if item.recipe else model(item.model)
    kind = "" if item.model == "student" else f", {model(item.model)}"
    rows = [(row.recipe, row.model) for row in table.rows if not row.held_out]
    return item.recipe + kind + (f", {item.setting}" if rows.count((item.recipe, item.model)) > 1 else "")


def over_seeds(runs: Sequence[SeedRun]) -> str:
    """'mean ± standard deviation over 3 seeds', empty for one."""
    names = [run.recipe for run in runs]
    low, high = (side(names.count(name) for name in names) for side in (min, max))
    return f"mean ± standard deviation over {low if low == high else f'{low} to {high}'} seeds" if high > 1 else ""


def protocol_line(digest: str, runs: Sequence[SeedRun]) -> str:
    """The digest, and whether it leaves out the seeds."""
    return digest + (", apart from the seed of the samples" if len({run.protocol for run in runs}) > 1 else "")


def sampled(table: Table) -> list[str]:
    """How the cells were sampled, where the rows do not say: 'Student: euler, uniform grid (1, 2, 4 calls).'"""
    lines = []
    for kind in dict.fromkeys(row.model for row in table.rows if not row.setting):
        parts = "; ".join(f"{setting}{_calls(columns)}" for setting, columns in table.settings[kind].items())
        lines.append(f"{sentence(model(kind))}: {parts}.")
    return lines


def _calls(columns: Sequence[Column]) -> str:
    numbers = [column for column in columns if not isinstance(column, str)]
    if not numbers:
        return " (its mean calls in brackets)"
    return f" ({', '.join(map(count, numbers))} call{'' if numbers == [1] else 's'})"


def remarks(runs: Sequence[SeedRun]) -> list[str]:
    """The meaning of the figures' columns."""
    noises = [run.noise for run in runs if run.noise]
    within = any(run.velocity_variance and run.velocity_variance.within_classes for run in runs)
    lines = [meaning.format(known=", given the class" * within) for meaning in MEANINGS]
    if leaks := [run.class_leak for run in runs if run.class_leak]:
        lines.append(LEAK.format(error=fixed(100 * max(leak.standard_error for leak in leaks), 1)))
    if noises:
        unseen = next((noise.held_out_floor for noise in noises if noise.held_out is not None), None)
        held_out = "" if unseen is None else f", and {fixed(unseen, 3)} at the number of held-out images"
        lines.append(GAUSSIAN.format(floor=fixed(noises[0].floor, 3), held_out=held_out))
    return [*lines, SEEDS] if len({run.noise_seed for run in runs}) > 1 else lines


def unequal_lines(lines: Sequence[str]) -> list[str]:
    return [f"Not on equal terms: {line}." for line in lines]
