"""`run`: run every stage of a recipe that has no result yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import OPTIONS
from flows.cli.options import Force, Nnodes, NodeRank, Nproc, Recipe, Remote, Rendezvous, Sweeps, Until
from flows.cli.output import WIDTH, print_table
from flows.cli.plan import in_all, print_plan, time_and_basis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.session.session import Session
    from pipeline.cost.forecast import StageTime
    from pipeline.recipe.recipe import Recipe as Settings
    from pipeline.recipe.sweep import Point


def run(
    recipe: Recipe,
    set_: Sweeps = None,
    force: Force = None,
    until: Until = None,
    nproc: Nproc = None,
    nnodes: Nnodes = None,
    node_rank: NodeRank = None,
    rendezvous: Rendezvous = None,
    remote: Remote = None,
    smoke_test: Annotated[
        bool, typer.Option("--smoke-test", help="Run a few steps of every network at full size, in a temporary store.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="Runs of a sweep at the same time; default: one on each GPU."),
    ] = None,
) -> None:
    """Run every stage that has no result yet. Rerun the same command to resume."""
    from flows.orchestration.launch import launch
    from flows.session.display import display
    from flows.session.recipes import check_name, sweep
    from flows.session.session import Session
    from flows.session.slurm import machines as slurm_machines
    from storage.errors import UsageError
    from storage.remote import default_remote

    machines = {"nproc": nproc, "nnodes": nnodes, "node_rank": node_rank, "rendezvous": rendezvous}
    given = {name: value for name, value in machines.items() if value is not None}
    slurm = {} if {"nnodes", "node_rank", "rendezvous"} & given.keys() else slurm_machines()
    places, chosen = ([f"compute.{name}={value}" for name, value in fields.items()] for fields in (slurm, given))
    recipes = sweep(recipe, [*places, *(set_ or ()), *chosen])
    if smoke_test:
        options = {"--force": force, "--jobs": jobs, "--remote": remote}
        if ignored := [option for option, value in options.items() if value]:
            raise UsageError("A smoke test is one run in a temporary store", " ".join(ignored), "Omit them.")
        for resolved, _ in recipes:
            _smoke_test(resolved, until)
        return
    if jobs is not None and len(recipes) == 1:
        raise UsageError("--jobs is of a sweep", jobs, "Give a setting several values, or leave --jobs out.")
    for resolved, _ in recipes:
        check_name(recipe, resolved)
    if len(recipes) > 1:
        _sweep(recipe, recipes, force or (), until, remote, jobs)
        return
    resolved, _ = recipes[0]
    session = Session.open(resolved, force or (), until, display=display())
    session.remote = default_remote(remote)
    steps = launch(session, OPTIONS.debug)
    if resolved.compute.node_rank == 0 and all(step.action == "reuse" for step in steps):
        print_plan(steps)
        count = "the stage has a result" if len(steps) == 1 else f"all {len(steps)} stages have results"
        typer.echo(f"Nothing to run: {count}.")
    _print_results(session)


def _sweep(
    name: str,
    recipes: list[tuple[Settings, Point]],
    force: Sequence[str],
    until: str | None,
    remote: str | None,
    jobs: int | None,
) -> None:
    """Run the recipes of a sweep in child processes, and print them as `flowctl runs` does."""
    from flows.cli.runs import print_runs
    from flows.orchestration.children import ChildFailed
    from flows.orchestration.sweeps import launch_sweep, open_sweep
    from flows.session.display import say
    from flows.views.runs import runs, runs_of
    from storage.remote import default_remote

    opened = open_sweep(recipes, force, until, default_remote(remote))
    options = [*(["--until", until] if until else []), *(["--remote", remote] if remote else [])]
    options += ["--debug"] * OPTIONS.debug
    failed = launch_sweep(opened, name, options, say, jobs)
    print_runs(runs_of(runs(opened[0].session.store), [resolved for resolved, _ in recipes]))
    if failed:
        raise ChildFailed(
            f"{len(failed)} of {len(recipes)} runs of the sweep failed: {', '.join(child.name for child in failed)}"
        )


def _print_results(session: Session) -> None:
    """The scores and the path of the report, as far as the run has them."""
    from flows.views.scores import summary

    scores = summary(session)
    if scores:
        print_table(scores.head, scores.rows, WIDTH)
        if scores.others:
            typer.echo(f"In the report: {', '.join(scores.others)}")
        for warning in scores.warnings:
            typer.echo(f"warning: {warning}")
    node = session.nodes.get("report")
    artifact = node and session.store.find("report", node.fingerprint)
    if artifact:
        typer.echo(f"Report: {artifact.path(artifact.metrics['page'])}")


def _smoke_test(recipe: Settings, until: str | None) -> None:
    from flows.session.smoke_test import run_smoke_test

    test = run_smoke_test(recipe, until)
    typer.echo(f"Smoke test passed: {', '.join(test.artifacts)} ran at full size. All results are removed.")
    rows = []
    for name, artifact in test.artifacts.items():
        parameters, peak = artifact.metrics.get("parameters"), test.memory.get(name)
        rows.append(
            (
                name,
                f"{parameters:,}" if parameters else "",
                _rate(test.times[name]),
                f"{peak:,.0f} MiB" if peak else "",
                *time_and_basis(test.times[name]),
            )
        )
    print_table(("STAGE", "PARAMETERS", "RATE", "MEMORY PEAK", "TIME", "TIME IS"), [*rows, _all(test.times)])
    if None in test.times.values():
        typer.echo("Images are not counted yet, which times and rates need: run the recipe --until data first.")
    elif not test.measured:
        typer.echo("Whole batches would take minutes on this device, so no rate was measured.")


def _rate(time: StageTime | None) -> str:
    """The measured rate of the part that takes longest; empty if it was not measured."""
    from pipeline.reporting.text.numbers import significant

    longest = max(time.parts, key=lambda part: part.seconds) if time else None
    if longest is None or longest.rate is None or longest.part.amount <= 1:
        return ""
    return f"{significant(longest.rate)} {longest.part.unit}/s"


def _all(times: Mapping[str, StageTime | None]) -> tuple[str, ...]:
    return ("all", "", "", "", *in_all(list(times.values())))
