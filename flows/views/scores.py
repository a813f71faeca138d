"""Evaluations in the store, and their numbers one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from flows.session.session import Session
from pipeline.engine.rerun import valid_artifact
from pipeline.outputs.results import EvaluationResult, LikelihoodResult, Score
from pipeline.recipe.load import nearest
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import ADAPTIVE
from pipeline.reporting.page.page import tables
from pipeline.reporting.scores.front import fronts
from pipeline.reporting.scores.metrics import HALVES, HELD_OUT, lower_is_better
from pipeline.reporting.text import names
from pipeline.reporting.text.numbers import count
from storage.artifact import Artifact
from storage.errors import DamageError, MissingError
from storage.store import Store


def evaluations(recipe: Recipe | None = None, name: str | None = None) -> list[Artifact]:
    """All valid evaluations, or that of one recipe; `name` is what its user calls it.

    Raises MissingError where the recipe has none, DamageError for a manifest whose metrics are not an evaluation's.
    """
    if recipe is None:
        return [
            _read(item) for item in Store().artifacts() if isinstance(item, Artifact) and item.stage == "evaluation"
        ]
    session = Session.finished(recipe)
    artifact = valid_artifact(session.nodes["evaluation"], session.store)
    if artifact is None:
        name = name or recipe.name
        raise MissingError(
            "results needs a finished evaluation", name, f"Run: flowctl run {name}. All results: flowctl results."
        )
    return [_read(artifact)]


def _read(artifact: Artifact) -> Artifact:
    """The same artifact, its metrics validated as an evaluation's."""
    try:
        metrics = EvaluationResult.model_validate(artifact.metrics).model_dump(mode="json")
    except ValidationError as error:
        raise DamageError(
            f"{artifact.root}/artifact.json",
            f"its metrics are not an evaluation's: {error.errors()[0]['loc']} {error.errors()[0]['msg']}",
            "Run: flowctl verify --repair",
        ) from error
    return artifact.model_copy(update={"metrics": metrics})


class Summary(NamedTuple):
    """The leading metric of an evaluation as rows of text, and the names of what else was measured."""

    head: list[str]
    rows: list[list[str]]
    others: list[str]
    warnings: tuple[str, ...]


def summary(session: Session) -> Summary | None:
    """The numbers with which a run ends: each model and NFE against the training images and, where that was measured,
    the held-out ones. None if the session has no evaluation."""
    node = session.nodes.get("evaluation")
    artifact = None if node is None else session.store.find(node.name, node.fingerprint)
    if artifact is None:
        return None
    result = EvaluationResult.model_validate(_read(artifact).metrics)
    if not result.scores:
        return None
    main, *others = tables(artifact.name, result)
    cells: dict[tuple[str, str, str], dict[bool, str]] = {}  # by model, NFE and setting; by held_out
    for row in main.rows:
        for cell in filter(None, row.cells):
            texts = cells.setdefault((row.model, count(cell.nfe), row.setting), {})
            texts[row.held_out] = cell.spread.text(cell.digits)
    for level in main.levels:
        calls = "" if level.model in (HELD_OUT, HALVES) else "0"
        cells.setdefault((level.model, calls, level.setting), {})[level.held_out] = level.text
    both = any(True in texts for texts in cells.values())
    return Summary(
        ["MODEL", "NFE", main.metric, *["TO HELD-OUT"] * both, "SAMPLER"],
        [
            [names.model(model), calls, texts.get(False, ""), *[texts.get(True, "")] * both, setting]
            for (model, calls, setting), texts in cells.items()
        ],
        [table.metric for table in others] + ["bits per dimension"] * (result.likelihood is not None),
        result.warnings,
    )


def numbers(evaluations: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Every score of these evaluations as plain data, and then every likelihood.

    `front` is true where no score of the same protocol and metric is as good with a lower NFE (`calls`), or in less
    time per image (`seconds`).
    """
    every = [
        (artifact, Score.model_validate(score)) for artifact in evaluations for score in artifact.metrics["scores"]
    ]
    on_front: dict[int, tuple[bool, bool]] = {}
    for protocol, metric in dict.fromkeys((artifact.metrics["protocol"], score.metric) for artifact, score in every):
        alike = [
            i
            for i, (artifact, score) in enumerate(every)
            if (artifact.metrics["protocol"], score.metric) == (protocol, metric)
        ]
        on_front |= zip(alike, fronts([every[i][1] for i in alike], lower_is_better(metric)), strict=True)
    return [
        {
            "recipe": artifact.name,
            "model": score.model,
            "solver": score.solver,
            "nfe": score.nfe,
            "metric": score.metric,
            "value": score.value,
            "error": score.error,
            "seconds_per_image": score.seconds_per_image,
            "front": {"calls": on_front[i][0], "seconds": on_front[i][1]},
            "digest": score.digest,
            "protocol": score.protocol,
            "evaluation": artifact.fingerprint,
        }
        for i, (artifact, score) in enumerate(every)
    ] + [_likelihood(artifact) for artifact in evaluations if artifact.metrics["likelihood"]]


def of_metric(scores: list[dict[str, Any]], metric: str | None) -> list[dict[str, Any]]:
    """The scores of one metric, or all. Raises MissingError for a metric that no score has."""
    chosen = [score for score in scores if metric in (None, score["metric"])]
    if metric is not None and scores and not chosen:
        raise MissingError("--metric must be measured", metric, nearest(metric, {score["metric"] for score in scores}))
    return chosen


def best_of(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best score of each evaluation, model and metric, in their order."""
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for score in scores:
        key = score["evaluation"], score["model"], score["metric"]
        sign = 1 if lower_is_better(score["metric"]) else -1
        if key not in best or sign * score["value"] < sign * best[key]["value"]:
            best[key] = score
    return list(best.values())


def _likelihood(artifact: Artifact) -> dict[str, Any]:
    """A likelihood in the fields of a score. It has no samples, so it has no digest and is on no front."""
    result = LikelihoodResult.model_validate(artifact.metrics["likelihood"])
    return {
        "recipe": artifact.name,
        "model": "student",
        "solver": ADAPTIVE,
        "nfe": result.calls,
        "metric": "bits per dimension",
        "value": result.bits_per_dim,
        "error": result.standard_error,
        "seconds_per_image": None,
        "front": {"calls": False, "seconds": False},
        "digest": None,
        "protocol": {
            "metric": "bits per dimension",
            "images": result.images,
            "probes": result.probes,
            "tolerance": result.tolerance,
            "dequantised": "uniformly",
        },
        "evaluation": artifact.fingerprint,
    }
