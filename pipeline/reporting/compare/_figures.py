"""Next to the scores: statistics of a coupling before training, straightness of the paths, and seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.reporting.compare._run import COUPLING, ONESTEP, STUDENT, SeedRun
from pipeline.reporting.compare._terms import by_recipe
from pipeline.reporting.scores.cells import Spread
from pipeline.reporting.scores.metrics import lower_is_better
from pipeline.reporting.text.numbers import digits_for
from storage.required import complete

ROUND_STAGE = re.compile(r"(pairs|reflow)-\d+")
CALLS = 2  # at which a student's score is predicted: few enough that straightness counts
FEWEST = 5  # students that can be ranked


@dataclass(frozen=True)
class Figure:
    """A column: its key in JSON, its name, the number of a run (None where it has none), the value shown as 1, and its
    decimals (None for three significant digits of the smallest)."""

    key: str
    title: str
    of: Callable[[SeedRun], float | None]
    unit: float = 1.0
    digits: int | None = None

    @property
    def heading(self) -> str:
        return self.title if self.unit == 1 else f"{self.title} × {1 / self.unit:,.0f}"


TRANSPORT = Figure("transport_cost", "transport cost", lambda run: run.transport_cost)
VARIANCE = Figure(
    "velocity_variance", "Var(v | x_t, t)", lambda run: run.velocity_variance.mean if run.velocity_variance else None
)
CURVATURE = Figure("curvature", "curvature", lambda run: run.curvature, unit=1e-3)
FIGURES = (
    TRANSPORT,
    VARIANCE,
    CURVATURE,
    Figure(
        "class_leak",
        "class from z",
        lambda run: run.class_leak.accuracy - run.class_leak.chance if run.class_leak else None,
        unit=1e-2,
        digits=1,
    ),
    Figure("noise_sliced_w2", "sliced W2 of z", lambda run: run.noise.sliced_w2 if run.noise else None),
    Figure("noise_sliced_w2_held_out", "of held-out z", lambda run: run.noise.held_out if run.noise else None),
    Figure("coupling_seconds", "coupling, s", lambda run: run.took(COUPLING), digits=0),
    Figure("student_seconds", "student, s", lambda run: run.took(STUDENT), digits=0),
    Figure(
        "reflow_seconds",
        "reflow, s",
        lambda run: run.took(tuple(stage for stage in run.seconds if ROUND_STAGE.fullmatch(stage))),
        digits=0,
    ),
    Figure("onestep_seconds", "one-step, s", lambda run: run.took(ONESTEP), digits=0),
)


@dataclass(frozen=True)
class FigureRow:
    """A recipe's figures, in the order of the columns; None where one was not measured."""

    recipe: str
    spreads: tuple[Spread | None, ...]
    texts: tuple[str | None, ...]


def figures(runs: Sequence[SeedRun]) -> tuple[list[Figure], list[FigureRow]]:
    """The columns that any run has a number for, and a line for each recipe."""
    columns = [figure for figure in FIGURES if any(figure.of(run) is not None for run in runs)]
    spreads = {
        recipe: tuple(_spread([figure.of(run) for run in some]) for figure in columns)
        for recipe, some in by_recipe(runs).items()
    }
    texts = zip(
        *(_texts([line[i] for line in spreads.values()], figure) for i, figure in enumerate(columns)), strict=True
    )
    return columns, [
        FigureRow(recipe, line, shown) for (recipe, line), shown in zip(spreads.items(), texts, strict=True)
    ]


def _texts(column: Sequence[Spread | None], figure: Figure) -> list[str | None]:
    shown = [spread and Spread(tuple(value / figure.unit for value in spread.values)) for spread in column]
    every = [value for spread in shown if spread for value in spread.values]
    digits = digits_for(every) + 1 if figure.digits is None else figure.digits
    return [None if spread is None else spread.text(digits) for spread in shown]


def _spread(values: Sequence[float | None]) -> Spread | None:
    """Over the seeds, where all of them have the figure."""
    figures = complete(values)
    return Spread(tuple(figures)) if figures else None


@dataclass(frozen=True)
class Prediction:
    """How well a figure known before training orders students as one known only after training does.

    `rho` is Spearman's rank correlation over students, each recipe at each seed: 1 for the same order. None where one
    of the two does not vary.
    """

    cheap: str
    dear: str
    rho: float | None
    students: int
    recipes: int


def predictions(runs: Sequence[SeedRun], metric: str) -> list[Prediction]:
    """Each figure known before training against each known after it; none for too few students.

    A score that is better when higher counts as its negative, so that 1 always speaks for the cheap figure.
    """
    sign = 1 if lower_is_better(metric) else -1
    outcomes = (CURVATURE, Figure("score", f"{metric} at {CALLS} calls", lambda run: _score(run, metric, sign)))
    predictions = []
    for cheap in (TRANSPORT, VARIANCE):
        for figure in outcomes:
            both = [(run.recipe, cheap.of(run), figure.of(run)) for run in runs]
            both = [item for item in both if None not in item]
            if len(both) >= FEWEST:
                recipes, before, after = zip(*both, strict=True)
                predictions.append(
                    Prediction(cheap.title, figure.title, _spearman(before, after), len(both), len(set(recipes)))
                )
    return predictions


def _score(run: SeedRun, metric: str, sign: int) -> float | None:
    """The student's at `CALLS` calls, if it was sampled so in one way."""
    values = [
        score.value for score in run.scores if (score.model, score.metric, score.nfe) == ("student", metric, CALLS)
    ]
    return sign * values[0] if len(values) == 1 else None


def _spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) == 1 or len(set(other)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)
