"""What Prefect's UI shows of a run: progress, a table of its stages, its scores, its samples, and its report."""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import temporary_settings

from flows.orchestration import reports
from flows.orchestration.server_watch import FAIL_FAST
from flows.session import forecasts, words
from flows.session.session import Session
from pipeline.outputs.results import EvaluationResult
from pipeline.recipe.recipe import Recipe
from pipeline.reporting.scores.table import setting
from pipeline.reporting.text.markdown import piped
from pipeline.reporting.text.numbers import significant
from pipeline.runtime.job import ProgressUpdate
from storage.artifact import Artifact

UPDATE_SECONDS = 3.0  # between updates of progress; each is a request
PAUSE_SECONDS = 60.0  # without requests after one that failed
GRID = "samples.png"  # of an evaluation


def run_name(recipe: Mapping[str, Any]) -> str:
    """The name of a recipe's runs, which tells seeds apart."""
    return f"{recipe['name'].partition('@')[0]}, seed {recipe.get('seed', 0)}"


def artifact_key(recipe: Recipe, what: str) -> str:
    """The key of an artifact in Prefect: lower case letters, digits and dashes."""
    name = run_name({"name": recipe.name, "seed": recipe.seed})
    return re.sub(r"[^a-z0-9]+", "-", f"{name}-{what}".lower()).strip("-")


class ProgressArtifact:
    """A listener for one stage. It creates its artifact at the first report, so that a reused stage has none."""

    def __init__(self, session: Session, stage: str) -> None:
        self._key = artifact_key(session.recipe, stage)
        self._session, self._began = session, time.monotonic()
        self._id: UUID | None = None
        self._next = 0.0

    def __call__(self, report: ProgressUpdate) -> None:
        now = time.monotonic()
        if now < self._next and report.done < report.total:
            return
        self._next = now + UPDATE_SECONDS
        percent = 100 * report.done / report.total if report.total else 0.0
        try:
            with temporary_settings(FAIL_FAST):
                self._send(percent, words.moment(report) + self._end(report))
        except Exception as error:  # trouble of the server must not stop the stage
            self._next = now + PAUSE_SECONDS
            logging.getLogger("flowctl").debug("no progress artifact for now: %s", error)

    def _end(self, report: ProgressUpdate) -> str:
        """When the whole run ends, as far as that is known."""
        plan = self._session.running_record.facts["plan"]
        entry = next(entry for entry in plan if entry["stage"] == report.stage)
        elapsed = time.monotonic() - self._began
        stage = forecasts.stage_left(entry, report.unit, report.seconds_left, elapsed)
        left = forecasts.run_left(plan, {report.stage: stage}, self._session.outcomes)
        return "" if left is None else f"; the run ends {words.ending(left)}"

    def _send(self, percent: float, text: str) -> None:
        if self._id is None:
            self._id = cast(UUID, create_progress_artifact(percent, key=self._key, description=text))
        else:
            update_progress_artifact(self._id, percent, description=text)


def create(session: Session, states: Mapping[str, str]) -> None:
    """Create the artifacts of a run that ends. `states` are the names of the states of the stages that were reached.

    Trouble of the server is logged and fails nothing: the results are in the store.
    """
    try:
        _create(session, states)
    except Exception as error:
        logging.getLogger("flowctl").warning("The run's artifacts could not be shown in Prefect: %s", error)


def _create(session: Session, states: Mapping[str, str]) -> None:
    recipe = session.recipe
    title = run_name({"name": recipe.name, "seed": recipe.seed})
    create_table_artifact(stage_table(session, states), key=artifact_key(recipe, "stages"), description=title)
    if "evaluation" in session.outcomes:
        artifact = session.outcomes["evaluation"].artifact
        result = EvaluationResult.model_validate(artifact.metrics)
        rows = score_table(result)
        create_table_artifact(rows, key=artifact_key(recipe, "scores"), description=f"Scores of {title}")
        text = summary(title, result, rows)
        create_markdown_artifact(text, key=artifact_key(recipe, "summary"), description=f"Scores of {title}")
        create_image_artifact(
            _data_uri(artifact), key=artifact_key(recipe, "samples"), description=f"Samples of {title}"
        )
    url = report_url(session)
    if url is not None:
        create_link_artifact(url, key=artifact_key(recipe, "report-page"), description=f"Report of {title}")


def report_url(session: Session) -> str | None:
    """Where a browser can open the session's report; None if no `flowctl ui` of this store runs."""
    if "report" not in session.outcomes:
        return None
    artifact = session.outcomes["report"].artifact
    return reports.url_of(artifact.path(artifact.metrics["page"]), session.store.home)


def stage_table(session: Session, states: Mapping[str, str]) -> list[dict[str, str]]:
    """One row for each stage of the recipe, also for those that the run did not reach."""
    rows = []
    for name in session.nodes:
        outcome = session.outcomes.get(name)
        rows.append(
            {
                "stage": name,
                "outcome": outcome.action if outcome else states.get(name, "not reached").lower(),
                "time": words.duration(outcome.seconds) if outcome else "",
                "artifact": str(outcome.artifact.root) if outcome else "",
            }
        )
    return rows


def score_table(result: EvaluationResult) -> list[dict[str, str]]:
    """One row for each score."""
    return [
        {
            "model": score.model,
            "sampler": setting(score, result.scores),
            "NFE": f"{score.nfe:g}",
            "metric": score.metric,
            "value": significant(score.value, 4),
            "error": "" if score.error is None else significant(score.error, 2),
        }
        for score in result.scores
    ]


def summary(title: str, result: EvaluationResult, rows: list[dict[str, str]]) -> str:
    """The scores with their protocol and warnings, as Markdown."""
    scores = piped(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
    notes = [f"Two halves of the real images: {significant(result.floor, 4)}. Protocol `{result.protocol}`."]
    return "\n".join([f"# {title}", "", scores, "", *notes, *(f"\n**Warning:** {text}" for text in result.warnings)])


def _data_uri(artifact: Artifact) -> str:
    """The sample grid as a URI that needs no server."""
    return "data:image/png;base64," + base64.b64encode(artifact.path(GRID).read_bytes()).decode()
