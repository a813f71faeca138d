"""`deploy`: recipes as deployments on a Prefect server, for its workers, schedules and UI."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.errors import OPTIONS
from flows.cli.options import Sets


def deploy(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE ...]",
            help="Names of shipped recipes or of runs, or YAML files; default: all shipped recipes.",
        ),
    ] = None,
    pool: Annotated[
        str, typer.Option("--pool", metavar="NAME", help="Work pool; created if it does not exist.")
    ] = "flowctl",
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="CRON", help="Cron schedule in UTC; default: no schedule.")
    ] = None,
    set_: Sets = None,
) -> None:
    """Register recipes as deployments with the Prefect server that PREFECT_API_URL names."""
    from flows.orchestration.server import check_server
    from flows.orchestration.server_errors import explaining
    from flows.session import settings
    from flows.session.recipes import check_name, load
    from pipeline.recipe.load import shipped
    from storage.errors import MissingError, UsageError
    from storage.store import Store

    resolved = [load(recipe, set_ or ()) for recipe in recipes or shipped()]
    for source, recipe in zip(recipes or shipped(), resolved, strict=True):
        check_name(source, recipe)
    names = [recipe.name for recipe in resolved]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError("Recipes must have different names", ", ".join(duplicates), "Change `name` in one of them.")
    if settings.server_url() is None:
        raise MissingError(
            "deploy needs a Prefect server",
            "no PREFECT_API_URL",
            "Start one with `flowctl ui`, and export PREFECT_API_URL as it prints.",
        )
    settings.configure(OPTIONS.debug)
    check_server()
    store = Store()
    store.prepare()
    from flows.orchestration import deployments
    from flows.orchestration.stale_runs import close_dead_runs

    close_dead_runs(store.home, settings.server_url())
    with explaining("while deployments are registered,", "its log"):
        done = deployments.deploy(resolved, pool, schedule, store.home)
    typer.echo(
        f"Deployed on the work pool {pool}: {', '.join(done)}\n"
        "Start a worker in another terminal, from any directory:\n"
        f"  export PREFECT_API_URL={settings.server_url()}\n"
        f"  prefect worker start --pool {pool}\n"
        f"Start a run in the UI, or with: prefect deployment run {done[0]}"
    )
