"""Several recipes under one protocol: what can be asked of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reporting.compare import _pages, _plot, _terms
from pipeline.reporting.compare._figures import Prediction, figures, predictions
from pipeline.reporting.compare._run import SeedRun
from pipeline.reporting.scores.cells import Spread, Table
from pipeline.reporting.scores.metrics import metrics_of, yardstick_of
from pipeline.reporting.scores.table import table
from storage.errors import MissingError


@dataclass(frozen=True)
class Comparison:
    """Runs that may share a table, in the order given; created by `compare`."""

    runs: tuple[SeedRun, ...]

    @property
    def metrics(self) -> list[str]:
        return metrics_of(score for run in self.runs for score in run.scores)

    @property
    def protocol(self) -> str:
        """The digest that all evaluations state; with several seeds, one of all fields but the seed."""
        return _terms.protocol(self.runs)

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def unequal(self) -> list[str]:
        """Unequal terms of the compared trainings, one sentence each; none if terms are equal."""
        return _terms.unequal(self.runs)

    def table(self, metric: str | None = None) -> Table:
        """Rows of (recipe, model) by network calls; the first metric unless another is named."""
        if metric is not None and metric not in self.metrics:
            raise MissingError("The metric must be measured", metric, f"Choose one of {', '.join(self.metrics)}.")
        name = metric or self.metrics[0]
        first = self.runs[0]
        yardstick = yardstick_of(name, first.held_out, first.floor, first.floors)
        seeds = {recipe: [run.scores for run in some] for recipe, some in _terms.by_recipe(self.runs).items()}
        return table(seeds, name, yardstick, joined=True)

    def predictions(self, metric: str | None = None) -> list[Prediction]:
        """Whether transport cost and Var(v | x_t, t) order students as their curvature and scores do."""
        return predictions(self.runs, metric or self.metrics[0])

    def text(self, metric: str | None = None) -> str:
        """For a terminal: plain, aligned, the best of each column with a star."""
        return _pages.text(self.runs, self.table(metric), self.predictions(metric), self.protocol, self.unequal)

    def markdown(self, metric: str | None = None) -> str:
        """For a README: the best of each column bold, teachers and yardstick below."""
        return _pages.markdown(self.runs, self.table(metric), self.predictions(metric), self.protocol, self.unequal)

    def plot(self, path: Path, metric: str | None = None) -> Path:
        """The metric against network calls, both axes logarithmic, as PNG, SVG or PDF by the path's ending."""
        seeds = max(len(some) for some in _terms.by_recipe(self.runs).values())
        return _plot.plot(self.table(metric), seeds, path)

    def to_json(self) -> dict[str, Any]:
        """A plain tree for `json.dump`, nothing rounded: every run, and the summary over its seeds."""
        columns, lines = figures(self.runs)
        return {
            "protocol": self.protocol,
            "floor": self.runs[0].floor,
            "held_out": self.runs[0].held_out,
            "seeds": self.seeds,
            "unequal": self.unequal,
            "shared": _terms.agreed(self.runs),
            "rows": [line for metric in self.metrics for line in _rows(self.table(metric))],
            "figures": [
                {"recipe": line.recipe}
                | {column.key: spread and _plain(spread) for column, spread in zip(columns, line.spreads, strict=True)}
                for line in lines
            ],
            "predictions": [vars(item) for item in self.predictions()],
            "runs": [run.model_dump(mode="json") for run in self.runs],
        }


def compare(runs: Sequence[SeedRun]) -> Comparison:
    """Join runs of recipes, each at the same seeds.

    Raises MissingError where there is none, InputError where one comes twice, and ProtocolError where their protocols
    differ in more than the seed.
    """
    _terms.check(runs)
    return Comparison(tuple(runs))


def _rows(scores: Table) -> list[dict[str, Any]]:
    """A table's cells, one by one."""
    return [
        {
            "recipe": row.recipe,
            "model": row.model,
            "setting": row.setting or None,
            "metric": scores.metric,
            "against": "held-out images" if row.held_out else "training images",
            "nfe": cell.nfe,
            "adaptive": cell.chosen,
            "seconds_per_image": cell.seconds,
            **_plain(cell.spread),
        }
        for row in scores.rows
        for cell in row.cells
        if cell
    ]


def _plain(spread: Spread) -> dict[str, Any]:
    return {
        "mean": spread.mean,
        "deviation": spread.deviation,
        "least": min(spread.values),
        "greatest": max(spread.values),
        "seeds": len(spread.values),
    }
