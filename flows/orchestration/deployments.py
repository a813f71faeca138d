"""Recipes as deployments on a Prefect server, which its UI starts, schedules and retries, and its workers run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic_core import to_jsonable_python

from flows.orchestration.pipeline_flow import pipeline, seed_tag
from flows.session import settings
from pipeline.recipe.recipe import Recipe
from storage.errors import UsageError

ENTRYPOINT = "flows.orchestration.pipeline_flow.pipeline"  # by import: a worker may be started anywhere


def deploy(recipes: Sequence[Recipe], pool: str, schedule: str | None, home: Path) -> list[str]:
    """Register a deployment for each recipe on a work pool, which is created if it does not exist; their names.

    Their runs use the store at `home`. An existing deployment is replaced, with its schedule; `schedule` is a cron
    line in UTC. Raises UsageError for an invalid line, or for a pool of another type.
    """
    schedules = [] if schedule is None else [DeploymentScheduleCreate(schedule=_cron(schedule), active=True)]
    with get_client(sync_client=True) as client:
        _prepare_pool(client, pool)
        flow_id = client.create_flow_from_name(pipeline.name)
        for recipe in recipes:
            parameters = _parameters(recipe)
            client.create_deployment(
                flow_id,
                recipe.name,
                entrypoint=ENTRYPOINT,
                work_pool_name=pool,
                schedules=schedules,
                tags=[seed_tag(parameters["recipe"])],
                description=recipe.description,
                parameters=parameters,
                job_variables=_job(home),
                parameter_openapi_schema=parameter_schema(pipeline).model_dump_for_openapi(),
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}],
            )
    return [f"{pipeline.name}/{recipe.name}" for recipe in recipes]


def _cron(line: str) -> CronSchedule:
    try:
        return CronSchedule(cron=line, timezone="UTC")
    except ValueError:
        raise UsageError(
            "--schedule must be a cron line: minute hour day month weekday",
            line,
            "Example: --schedule '0 2 * * *' runs each night at two, UTC",
        ) from None


def _prepare_pool(client: SyncPrefectClient, name: str) -> None:
    """Create a pool whose workers start processes on their own machine, where the store is, if it does not exist."""
    try:
        kind = client.read_work_pool(name).type
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return
    if kind != "process":
        raise UsageError(
            "--pool must name a work pool of type process", f"{name}, of type {kind}", "Choose another name"
        )


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe, to be read and changed in the UI. Paths are absolute: a worker has another directory."""
    tree = to_jsonable_python(_absolute(recipe.model_dump()))
    return {"recipe": tree, "force": None, "until": None}


def _absolute(value: Any) -> Any:
    """The same value, every path in it absolute."""
    match value:
        case Path():
            return Path(os.path.abspath(value))
        case dict():
            return {key: _absolute(item) for key, item in value.items()}
        case list() | tuple():
            return [_absolute(item) for item in value]
    return value


def _job(home: Path) -> dict[str, Any]:
    """How a worker starts the process. Prefect is set up here because the process imports Prefect first.

    The worker does not read the process's output: otherwise a worker that is killed would end the process too.
    """
    return {
        "stream_output": False,
        "env": {
            "FLOWCTL_HOME": str(home),
            "PREFECT_LOGGING_EXTRA_LOGGERS": settings.LOGGERS,
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        },
    }
