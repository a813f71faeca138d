"""Recipes side by side: one table and one plot of a metric against network calls, or a refusal that says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report import words
from pipeline.report.numbers import count, plain
from pipeline.report.scores import OF_A_ROW, TEACHER, Cell, Level, Row, Table, metrics_of, shared, table
from pipeline.results import EvaluationResult, Score
from storage.artifact import Artifact
from storage.atomic import replacing
from storage.errors import InputError

FORMATS = (".png", ".svg", ".pdf")
COST = ("images_seen", "ema")  # of the training: what a fair comparison holds equal


@dataclass(frozen=True)
class Comparison:
    """Several recipes' scores under one protocol.

    Attributes:
        scores: by recipe.
        floor: the metric between two halves of the real images.
        protocol: the digest that all evaluations state.
    """

    scores: Mapping[str, tuple[Score, ...]]
    floor: float
    protocol: str

    @property
    def metrics(self) -> list[str]:
        return metrics_of(score for scores in self.scores.values() for score in scores)

    def table(self, metric: str | None = None) -> Table:
        """Rows of (recipe, model, way of sampling) by network calls; the first metric unless another is named."""
        if metric is not None and metric not in self.metrics:
            raise InputError("A table shows a metric that was measured", metric, "Measured: " + ", ".join(self.metrics))
        return table(self.scores, self.floor, metric or self.metrics[0])

    @property
    def unequal(self) -> list[str]:
        """What the compared trainings do not have in common, one sentence each; none if terms are equal."""
        lines = []
        for model in dict.fromkeys(s.model for scores in self.scores.values() for s in scores if s.model != TEACHER):
            for field in COST:
                found = {recipe: {plain(s.protocol[field]) for s in scores if s.model == model and field in s.protocol}
                         for recipe, scores in self.scores.items()}
                told = {recipe: ", ".join(sorted(values)) for recipe, values in found.items() if values}
                if len(set(told.values())) > 1:
                    lines.append(f"{words.model(model)}: {words.field(field)} differ: "
                                 + "; ".join(f"{recipe} {value}" for recipe, value in told.items()))
        return lines

    def text(self, metric: str | None = None) -> str:
        """The table for a terminal: plain, aligned, the best of each column with a star."""
        made = self.table(metric)
        head, rows = _grid(made, lambda cell: ("*" if cell.best else "") + cell.text)
        widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
                 for line in (head, *rows)]
        lines.insert(1, "─" * max(map(len, lines)))
        levels = [f"{_level(level)}: {level.text}" for level in made.levels]
        return "\n".join([f"{made.metric} by network calls", "", *lines, "", *levels, "", _note(made, "*"),
                          f"Protocol {self.protocol}.", *self.unequal])

    def markdown(self, metric: str | None = None) -> str:
        """The table for a README, the best of each column bold, teachers and floor below."""
        made = self.table(metric)
        head, rows = _grid(made, lambda cell: f"**{cell.text}**" if cell.best else cell.text)
        head[0] = f"{made.metric} at calls"
        ruler = ["---", "---", *("---:" for _ in made.nfe)]
        lines = ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in (head, ruler, *rows)]
        levels = "; ".join(f"{_level(level)} {level.text}" for level in made.levels)
        return "\n".join([*lines, "", f"{levels[:1].upper()}{levels[1:]}. {_note(made, 'bold')} "
                          f"Protocol `{self.protocol}`.", *self.unequal])

    def to_json(self) -> dict[str, Any]:
        """A plain tree for `json.dump`: nothing rounded."""
        return {"protocol": self.protocol, "floor": self.floor, "unequal": self.unequal,
                "shared": shared([score for scores in self.scores.values() for score in scores]),
                "scores": [{"recipe": recipe, **score.model_dump(mode="json")}
                           for recipe, scores in self.scores.items() for score in scores]}

    def plot(self, path: Path, metric: str | None = None) -> Path:
        """Draw the metric against network calls, both axes logarithmic, as PNG, SVG or PDF by the path's ending."""
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise InputError("A plot is a picture file", path.name, f"End its name in {', '.join(FORMATS)}")
        import matplotlib

        from pipeline.pictures import curves

        made = self.table(metric)
        series = {_legend(made, row): row.points(made.nfe) for row in made.rows}
        figure = curves(series, y=made.metric, levels={_level(level): level.value for level in made.levels})
        # The salt and the missing date make the same numbers the same bytes.
        metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        with replacing(path) as aside, matplotlib.rc_context({"svg.hashsalt": "flowctl"}):
            figure.savefig(aside, format=path.suffix[1:].lower(), dpi=160, metadata=metadata[path.suffix.lower()])
        return path


def compare(evaluations: Mapping[str, Artifact]) -> Comparison:
    """Join the evaluations of recipes, by the recipes' names.

    Raises InputError where there is none, where one is not an evaluation, or where their protocols differ.
    """
    if not evaluations:
        raise InputError("A comparison needs an evaluation", "none", "Name one or more recipes that have been run")
    for recipe, artifact in evaluations.items():
        if artifact.stage != "evaluation":
            raise InputError("Recipes are compared by their evaluations", f"{recipe}: {artifact.stage}",
                             "Give the artifact of the stage evaluation")
    results = {recipe: EvaluationResult.model_validate(artifact.metrics) for recipe, artifact in evaluations.items()}
    first = next(iter(results.values()))
    if any((found.protocol, found.floor) != (first.protocol, first.floor) for found in results.values()):
        raise InputError("Numbers of different protocols never share a table", "; ".join(_differences(results)),
                         "Give these recipes the same data, reference and evaluation settings, and run them again")
    return Comparison({recipe: found.scores for recipe, found in results.items()}, first.floor, first.protocol)


def _differences(results: Mapping[str, EvaluationResult]) -> list[str]:
    """Field by field, what each recipe's protocol says; the digests where the fields do not tell."""
    common = {recipe: _common(found.scores) for recipe, found in results.items()}
    lines = []
    for name in dict.fromkeys(field for fields in common.values() for field in fields):
        values = {recipe: plain(fields[name]) if name in fields else "not stated" for recipe, fields in common.items()}
        if len(set(values.values())) > 1:
            lines.append(f"{name}: " + ", ".join(f"{recipe} {value}" for recipe, value in values.items()))
    if len({found.floor for found in results.values()}) > 1:
        lines.append("floor: " + ", ".join(f"{recipe} {found.floor:g}" for recipe, found in results.items()))
    return lines or ["digest: " + ", ".join(f"{recipe} {found.protocol}" for recipe, found in results.items())]


def _common(scores: Sequence[Score]) -> dict[str, Any]:
    """The fields in which one evaluation's scores agree, without those of a single row."""
    first = scores[0].protocol
    return {field: value for field, value in first.items() if field not in OF_A_ROW
            and all(score.protocol.get(field) == value for score in scores)}


def _grid(made: Table, shown: Callable[[Cell], str]) -> tuple[list[str], list[list[str]]]:
    """Heading and lines as texts: recipe, model and way of sampling, a cell for each number of calls."""
    def text(cell: Cell | None) -> str:
        return shown(cell) if cell else "–"

    head = ["recipe", "model", *(count(nfe) for nfe in made.nfe)]
    return head, [[row.recipe, f"{words.model(row.model)}, {row.way}", *map(text, row.cells)] for row in made.rows]


def _level(level: Level) -> str:
    return f"{words.model(level.model)} of {level.recipe}" if level.recipe else words.model(level.model)


def _legend(made: Table, row: Row) -> str:
    """A row's name in the plot: the way of sampling only where it tells rows apart."""
    alone = sum((other.recipe, other.model) == (row.recipe, row.model) for other in made.rows) == 1
    return f"{row.recipe}, {words.model(row.model)}" + ("" if alone else f", {row.way}")


def _note(made: Table, mark: str) -> str:
    better = "Lower" if made.lower_is_better else "Higher"
    return f"{better} is better, {mark} the best of its column; rounded half up."


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
