"""Evaluations in the store, and their numbers one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from flows.session.recipes import load
from flows.session.session import Session
from pipeline.engine.rerun import valid_artifact
from pipeline.outputs.results import EvaluationResult, LikelihoodResult, Score
from pipeline.reporting.scores.front import fronts
from pipeline.reporting.scores.table import lower_is_better
from storage.artifact import Artifact
from storage.errors import DamageError, InputError
from storage.store import Store


def evaluations(recipe: str | None = None, overrides: Sequence[str] = ()) -> list[Artifact]:
    """All sound ones, or that of one recipe.

    Raises InputError where the recipe has none yet, DamageError for a manifest whose figures are none.
    """
    if recipe is None:
        return [
            _read(found) for found in Store().artifacts() if isinstance(found, Artifact) and found.stage == "evaluation"
        ]
    session = Session.finished(load(recipe, overrides))
    artifact = valid_artifact(session.nodes["evaluation"], session.store)
    if artifact is None:
        raise InputError(
            "results need a finished evaluation",
            recipe,
            f"`flowctl run {recipe}` makes it; `flowctl results` lists all there are",
        )
    return [_read(artifact)]


def _read(artifact: Artifact) -> Artifact:
    """The same, its figures known to be those of an evaluation."""
    try:
        metrics = EvaluationResult.model_validate(artifact.metrics).model_dump(mode="json")
    except ValidationError as error:
        raise DamageError(
            f"{artifact.root}/artifact.json",
            f"its metrics are not an evaluation's: {error.errors()[0]['loc']} {error.errors()[0]['msg']}",
            "`flowctl verify --repair` makes it anew",
        ) from error
    return artifact.model_copy(update={"metrics": metrics})


def numbers(found: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Every score of these evaluations as plain data, with what follows from the others, and then every likelihood.

    `front` says whether nothing measured under the same protocol in the same metric is as good with fewer network calls
    (`calls`), or in less time per image (`seconds`).
    """
    every = [(artifact, Score.model_validate(score)) for artifact in found for score in artifact.metrics["scores"]]
    told: dict[int, tuple[bool, bool]] = {}
    for protocol, metric in dict.fromkeys((artifact.metrics["protocol"], score.metric) for artifact, score in every):
        alike = [
            i
            for i, (artifact, score) in enumerate(every)
            if (artifact.metrics["protocol"], score.metric) == (protocol, metric)
        ]
        told |= zip(alike, fronts([every[i][1] for i in alike], lower_is_better(metric)), strict=True)
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
            "front": {"calls": told[i][0], "seconds": told[i][1]},
            "digest": score.digest,
            "protocol": score.protocol,
            "evaluation": artifact.fingerprint,
        }
        for i, (artifact, score) in enumerate(every)
    ] + [_likelihood(artifact) for artifact in found if artifact.metrics["likelihood"]]


def _likelihood(artifact: Artifact) -> dict[str, Any]:
    """In the fields of a score. It has no digest, for no protocol of samples holds of it, and is on no front."""
    found = LikelihoodResult.model_validate(artifact.metrics["likelihood"])
    return {
        "recipe": artifact.name,
        "model": "student",
        "solver": "dopri5",
        "nfe": found.calls,
        "metric": "bits per dimension",
        "value": found.bits_per_dim,
        "error": found.standard_error,
        "seconds_per_image": None,
        "front": {"calls": False, "seconds": False},
        "digest": None,
        "protocol": {
            "metric": "bits per dimension",
            "images": found.images,
            "probes": found.probes,
            "tolerance": found.tolerance,
            "dequantised": "uniformly",
        },
        "evaluation": artifact.fingerprint,
    }
