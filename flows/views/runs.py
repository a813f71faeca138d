"""All recorded runs as rows: state, the settings that differ from the recipe, one score, and the time."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import yaml

from flows.session.runs import BAD_ENDS, alive, records
from pipeline.recipe.changes import ABSENT, changes
from pipeline.recipe.load import load, nearest, shipped
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sweep import stem
from pipeline.reporting.scores.metrics import lower_is_better
from storage.artifact import Artifact
from storage.errors import DamageError, FlowctlError, UsageError
from storage.store import Store

NO_SETTINGS = ("name", "description", "seed", "compute")  # shown in their own columns, or without effect on results
COLUMNS = ("name", "seed", "state", "metric", "score", "model", "nfe", "seconds", "began")
OPERATORS = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
ORDERS = ("<=", ">=", "<", ">")


def runs(store: Store, metric: str | None = None) -> list[dict[str, Any]]:
    """One row per recipe, seed and settings, from its latest record, in the order of the first.

    The score is the best of the run in `metric`, by default the first metric of its evaluation. `seconds` is the sum
    over the stages that have a result, shared ones included. Raises MissingError for a metric that no run has.
    """
    latest: dict[str, dict[str, Any]] = {}
    for facts in records(store.home):
        if isinstance(facts.get("recipe"), dict):
            latest[json.dumps([facts["name"], _settings(facts["recipe"])], sort_keys=True)] = facts
    bases: dict[str, dict[str, Any]] = {}
    rows, measured = [], []
    for facts in latest.values():
        recipe = facts["recipe"]
        base = bases.setdefault(stem(facts["name"]), _recipe_of(facts))
        seconds, scores = _measured(facts, store)
        measured += scores
        rows.append(
            {
                "name": facts["name"],
                "seed": recipe.get("seed"),
                "state": _state(facts, store),
                "outcome": facts.get("outcome"),
                "changes": {
                    change.path: change.b
                    for change in changes(_settings(base), _settings(recipe))
                    if change.b is not ABSENT  # of another kind of section, or of a later version
                },
                "seconds": seconds,
                **_best(scores, metric),
                "began": facts.get("began"),
                "recipe": recipe,
            }
        )
    if metric is not None:
        from flows.views.scores import of_metric  # twice the time of all other imports of `flowctl runs`

        of_metric(measured, metric)
    return rows


def runs_of(rows: Sequence[dict[str, Any]], recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """The rows of these recipes, in their order."""
    trees = [recipe.model_dump(mode="json") for recipe in recipes]
    return [
        row
        for tree in trees
        for row in rows
        if row["name"] == tree["name"] and _settings(row["recipe"]) == _settings(tree)
    ]


def where(rows: Sequence[dict[str, Any]], conditions: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that meet all conditions, such as state=done, score<0.5 or student.training.lr=1e-3.

    Raises UsageError for a condition without an operator or of an invalid value, or of a field that no row has.
    """
    for condition in conditions:
        name, symbol, text = _parsed(condition)
        if rows and all(_value(row, name) is ABSENT for row in rows):
            raise UsageError(
                "--where needs a column or a field of a recipe", name, nearest(name, (*COLUMNS, *rows[0]["recipe"]))
            )
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError("--where must compare with a value in YAML", condition, "Put text in quotes.") from None
        if name == "began" and isinstance(given, date):
            given = (given if isinstance(given, datetime) else datetime(given.year, given.month, given.day)).timestamp()
        numbers = any(isinstance(_value(row, name), int | float) for row in rows)
        if symbol in ORDERS and numbers and not _is_number(given):
            raise UsageError("--where must compare a number with a number", condition, "Example: --where 'score<0.5'.")
        rows = [row for row in rows if _meets(_value(row, name), OPERATORS[symbol], given)]
    return list(rows)


def sort(rows: Sequence[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The rows by a column or a field of the recipe, ascending; descending after a minus. Rows without it are last.

    Raises UsageError where no row has it.
    """
    name = column.removeprefix("-")
    present = [row for row in rows if _value(row, name) not in (None, ABSENT)]
    if rows and name not in COLUMNS and not present:
        raise UsageError("--sort needs a column or a field of a recipe", column, nearest(name, COLUMNS))
    numbers = all(isinstance(_value(row, name), int | float) for row in present)
    present.sort(key=lambda row: _value(row, name) if numbers else str(_value(row, name)), reverse=column != name)
    return present + [row for row in rows if not any(row is other for other in present)]


def _recipe_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The recipe without changes: the shipped one of this name, else the first recorded run's."""
    base = stem(facts["name"])
    return load(base).model_dump(mode="json") if base in shipped() else facts["recipe"]


def _settings(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in NO_SETTINGS}


def _state(facts: dict[str, Any], store: Store) -> str:
    outcome = str(facts.get("outcome") or "")
    if facts.get("ended") is None:
        return "running" if alive(facts, store.home) else "killed"
    for state in BAD_ENDS:
        if outcome.startswith(state):
            return "stopped" if "Stopped" in outcome else state
    return "done"


def _measured(facts: dict[str, Any], store: Store) -> tuple[float | None, list[dict[str, Any]]]:
    """Seconds of the run's stages and the scores of its evaluation, as far as they are in the store."""
    found = [artifact for step in _steps(facts) if (artifact := _artifact(step, store)) is not None]
    seconds = sum(artifact.provenance.wall_seconds for artifact in found) if found else None
    scores = [artifact.metrics.get("scores") for artifact in found if artifact.stage == "evaluation"]
    return seconds, [score for each in scores for score in each or ()]


def _steps(facts: dict[str, Any]) -> list[dict[str, str]]:
    return facts["plan"] if isinstance(facts.get("plan"), list) else []


def _best(scores: list[dict[str, Any]], metric: str | None) -> dict[str, Any]:
    """The best score of a run in the metric, or in the first that it has."""
    chosen = metric or (scores[0]["metric"] if scores else None)
    scores = [score for score in scores if score["metric"] == chosen]
    if not scores or chosen is None:
        return dict.fromkeys(("metric", "score", "model", "nfe"))
    best = (min if lower_is_better(chosen) else max)(scores, key=lambda score: score["value"])
    return {"metric": chosen, "score": best["value"], "model": best["model"], "nfe": best["nfe"]}


def _artifact(step: dict[str, str], store: Store) -> Artifact | None:
    try:
        return store.find(step["stage"], step["fingerprint"])
    except (DamageError, FlowctlError, KeyError, TypeError):
        return None


def _parsed(condition: str) -> tuple[str, str, str]:
    for symbol in OPERATORS:  # two characters first
        name, separator, text = condition.partition(symbol)
        if separator and name.strip():
            return name.strip(), symbol, text
    raise UsageError("--where must be FIELD=VALUE, or with != < <= > >=", condition, "Example: --where 'score<0.5'.")


def _value(row: dict[str, Any], name: str) -> Any:
    """A column, else a field of the recipe by its path."""
    if name in COLUMNS:
        return row[name]
    branch: Any = row["recipe"]
    for key in name.split("."):
        branch = branch.get(key, ABSENT) if isinstance(branch, dict) else ABSENT
    return branch


def _is_number(value: Any) -> bool:
    try:
        return float(value) == float(value)
    except (TypeError, ValueError):
        return False


def _meets(value: Any, compare: Any, given: Any) -> bool:
    """Numbers are compared as numbers, anything else as text; a missing value only differs."""
    if value is None or value is ABSENT:
        return compare is operator.ne or (compare is operator.eq and given is None)
    try:
        return compare(float(value), float(given))
    except (TypeError, ValueError):
        return compare(str(value), str(given))
