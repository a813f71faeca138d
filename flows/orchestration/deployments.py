"""Recipes as deployments on a Prefect server: started, scheduled and retried in its UI, run by its workers."""

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

from flows.orchestration.gpus import create_limits, limit_name
from flows.orchestration.pipeline_flow import pipeline
from flows.session import settings
from pipeline.recipe.recipe import Recipe
from storage.errors import InputError

ENTRYPOINT = "flows.orchestration.pipeline_flow.pipeline"  # by import: a worker may be started anywhere


def deploy(recipes: Sequence[Recipe], pool: str, schedule: str | None, home: Path) -> list[str]:
    """Register a deployment for each recipe on a work pool, made if it is not there; the deployments' names.

    Runs go to the store at `home`. A deployment that is there is replaced, with its schedule; `schedule` is a cron
    line in UTC. Raises InputError for such a line, or a pool, that will not do.
    """
    schedules = [] if schedule is None else [DeploymentScheduleCreate(schedule=_cron(schedule), active=True)]
    with get_client(sync_client=True) as client:
        _prepare_pool(client, pool)
        create_limits(client, _gpus())
        flow_id = client.create_flow_from_name(pipeline.name)
        for recipe in recipes:
            client.create_deployment(
                flow_id,
                recipe.name,
                entrypoint=ENTRYPOINT,
                work_pool_name=pool,
                schedules=schedules,
                description=recipe.description,
                parameters=_parameters(recipe),
                job_variables=_job(home),
                parameter_openapi_schema=parameter_schema(pipeline).model_dump_for_openapi(),
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}],
            )
    return [f"{pipeline.name}/{recipe.name}" for recipe in recipes]


def _cron(line: str) -> CronSchedule:
    try:
        return CronSchedule(cron=line, timezone="UTC")
    except ValueError:
        raise InputError(
            "--schedule is a cron line: minute hour day month weekday",
            line,
            "Example: --schedule '0 2 * * *', each night at two, UTC",
        ) from None


def _prepare_pool(client: SyncPrefectClient, name: str) -> None:
    """A pool whose workers start processes on their own machine, for that is where the store is."""
    try:
        kind = client.read_work_pool(name).type
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return
    if kind != "process":
        raise InputError("--pool names a work pool of type process", f"{name}, of type {kind}", "Choose another name")


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe, to be read and changed in the UI. A relative path would mean another place in a worker."""
    tree = recipe.model_dump(mode="json")
    for section in (tree["data"], tree["source"]):
        if section and section["path"]:
            section["path"] = os.path.abspath(section["path"])
    return {"recipe": tree, "force": None, "until": None}


def _job(home: Path) -> dict[str, Any]:
    """How a worker starts the process. Its settings of Prefect are made here, for there Prefect is imported first.

    The output stays with the process: a worker that is killed would take along one that writes to it.
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


def _gpus() -> list[str]:
    """The limits of this machine's GPUs; one even without any, for other machines may have theirs."""
    import torch

    return [limit_name(index) for index in range(max(1, torch.cuda.device_count()))]
