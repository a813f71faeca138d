"""Expected times: of the stages ahead, by `pipeline.cost.forecast`, and of what is left of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from storage.errors import InputError

if TYPE_CHECKING:
    from flows.session.session import Session
    from pipeline.cost.forecast import Forecast, StageTime
    from pipeline.engine.dag import Node
    from pipeline.engine.execute import Outcome
    from pipeline.engine.plan import Step

AHEAD = ("run", "resume")  # actions that take the time of a stage


def stage_times(session: Session, steps: Sequence[Step], gpu: str | None = None) -> dict[str, StageTime | None]:
    """The time of each stage that has no result yet, by fingerprint; None where its images are not counted yet. On this
    machine, or on a GPU of a name.

    Raises InputError where a stage does not fit the images.
    """
    if not any(step.action in AHEAD for step in steps):
        return {}
    data = next((step.artifact for step in steps if step.node.name == "data"), None)
    return _forecast(session, None if data is None else data.metrics, gpu).of_plan(steps, session.store)


def stage_times_if_known(session: Session, steps: Sequence[Step]) -> Mapping[str, StageTime | None]:
    """`stage_times` for a run, which needs none: trouble with them gives no times, but a stage must fit its images."""
    with _times_not_needed():
        return stage_times(session, steps)
    return {}


@contextmanager
def _times_not_needed() -> Iterator[None]:
    """Trouble with times is a warning, but for a stage that does not fit the images."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        _unknown(error)


def _unknown(error: Exception) -> None:
    logging.getLogger("flowctl").warning("The time of the run is unknown: %s: %s", type(error).__name__, error)


def with_times(entries: list[dict[str, Any]], times: Mapping[str, StageTime | None]) -> list[dict[str, Any]]:
    """A plan as plain data with the times of the stages ahead: seconds, and the share of them that is measured."""
    return [entry | (time.facts() if (time := times.get(entry["fingerprint"])) else {}) for entry in entries]


def learn(session: Session, node: Node, outcome: Outcome) -> None:
    """Store the rates of a stage that has just run; one that needed no torch has none. No trouble stops the run."""
    try:
        if outcome.timings is not None and "torch" in sys.modules:
            resumed = outcome.artifact.provenance.resumed > 0
            measured = outcome.artifact.metrics if node.name == "data" else counted(session)
            _forecast(session, measured).learn(node, outcome.timings, outcome.seconds, resumed)
    except Exception as error:
        _unknown(error)


def counted(session: Session) -> Mapping[str, Any] | None:
    """The metrics of the data, which count their images; None before a run has, or where the session has no data."""
    node = session.nodes.get("data")
    artifact = node and session.store.find(node.name, node.fingerprint)
    return artifact.metrics if artifact else None


def complete(session: Session, measured: Mapping[str, Any]) -> None:
    """Once the data have counted their images, add to the plan of the run the times that depend on them.

    Raises InputError where a stage does not fit the images; no other trouble stops the run.
    """
    plan = session.running_record.facts["plan"]
    unknown = [entry["stage"] for entry in plan if entry["action"] in AHEAD and "seconds" not in entry]
    if not unknown or session.rates:
        return
    with _times_not_needed():
        forecast = _forecast(session, measured)
        nodes = [session.nodes[stage] for stage in unknown]
        session.running_record.expects(with_times(plan, {node.fingerprint: forecast.of_stage(node) for node in nodes}))


def _forecast(session: Session, measured: Mapping[str, Any] | None, gpu: str | None = None) -> Forecast:
    from pipeline.cost.forecast import Forecast

    return Forecast(session.recipe.compute, session.rates or session.store.home, measured, gpu=gpu)


def stage_left(
    entry: Mapping[str, Any], unit: str | None, seconds_left: float | None, elapsed: float | None
) -> float | None:
    """Seconds that a running stage still takes; None if nothing says so.

    A training ends by its current rate; what follows it is planned. Other stages report progress of their parts, so
    the planned time counts, less the time that has passed.

    Args:
        entry: of the stage in the run's plan.
        unit: of its progress.
        seconds_left: of what it reports progress of, by its current rate.
        elapsed: seconds since the stage began.
    """
    planned = entry.get("seconds")
    if planned is None:
        return seconds_left
    if unit == "images" and entry["training_seconds"] and seconds_left is not None:
        return seconds_left + planned - entry["training_seconds"]
    return max(planned - (elapsed or 0.0), seconds_left or 0.0)


def run_left(
    plan: Sequence[Mapping[str, Any]], running: Mapping[str, float | None], finished: Collection[str]
) -> float | None:
    """Seconds that a run still takes: what is left of the stages that run, and the planned time of those to come.

    None if one of them is unknown.
    """
    total = 0.0
    for entry in plan:
        stage = entry["stage"]
        if stage not in finished and entry["action"] in AHEAD:
            seconds = running[stage] if stage in running else entry.get("seconds")
            if seconds is None:
                return None
            total += seconds
    return total
