"""`run` and `plan`: make what a recipe asks for, or say what would be made and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import OPTIONS
from flows.cli.options import Force, Json, Nnodes, NodeRank, Nproc, Recipe, Remote, Rendezvous, Sets, Until
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from flows.session.session import Session
    from pipeline.engine.plan import Step


def run(
    recipe: Recipe,
    set_: Sets = None,
    force: Force = None,
    until: Until = None,
    nproc: Nproc = None,
    nnodes: Nnodes = None,
    node_rank: NodeRank = None,
    rendezvous: Rendezvous = None,
    remote: Remote = None,
    smoke_test: Annotated[
        bool,
        typer.Option(
            "--smoke-test",
            help="Rehearse: every network at full size, one step of "
            "each on a few images, in a store that is removed after.",
        ),
    ] = False,
) -> None:
    """Make everything the recipe asks for that is not there yet. The same command goes on after any stop."""
    from flows.orchestration.launch import launch
    from flows.session.display import display
    from flows.session.recipes import load
    from flows.session.session import Session
    from storage.remote import default_remote

    machines = {"nproc": nproc, "nnodes": nnodes, "node_rank": node_rank, "rendezvous": rendezvous}
    chosen = [f"compute.{name}={value}" for name, value in machines.items() if value is not None]
    resolved = load(recipe, [*(set_ or ()), *chosen])
    if smoke_test:
        _smoke_test(resolved, until)
        return
    session = Session.open(resolved, force or (), until, display=display())
    session.remote = default_remote(remote)
    steps = launch(session, OPTIONS.debug)
    if all(step.action == "reuse" for step in steps):
        _print_plan(steps)
        typer.echo(f"Nothing to run: {'the stage is' if len(steps) == 1 else f'all {len(steps)} stages are'} there.")
    _print_report(session)


def plan(
    recipe: Recipe,
    set_: Sets = None,
    force: Force = None,
    until: Until = None,
    remote: Remote = None,
    json_: Json = False,
) -> None:
    """Say for each stage whether `run` would reuse, fetch, resume or run it, why, and what it would take."""
    from flows.session.recipes import load
    from flows.session.session import Session
    from pipeline.engine.plan import outline
    from pipeline.engine.plan import plan as make_plan
    from storage.remote import default_remote

    session = Session.open(load(recipe, set_ or ()), force or (), until)
    steps = make_plan(session.nodes, session.store, session.force, default_remote(remote))
    if json_:
        print_json(outline(steps))
    else:
        _print_plan(steps)
        _print_estimates(steps)


def _print_plan(steps: list[Step]) -> None:
    print_table(("STAGE", "ACTION", "WHY"), [(step.node.name, step.action, step.reason) for step in steps])


def _print_estimates(steps: list[Step]) -> None:
    """What the stages that are not there yet will take. Networks are only described for this, not built."""
    ahead = [step for step in steps if step.action not in ("reuse", "fetch")]
    if not ahead:
        return
    from flows.session import words
    from pipeline.training.estimate import estimate

    measured = next((step.artifact.metrics for step in steps if step.node.name == "data" and step.artifact), None)
    rows, disk = [], 0
    for step in ahead:
        figures = estimate(step.node, measured)
        disk += figures.disk_bytes or 0
        if figures.parameters or figures.disk_bytes:
            rows.append(
                (
                    step.node.name,
                    f"{figures.parameters:,}" if figures.parameters else "",
                    f"{figures.steps:,}" if figures.steps else "",
                    words.size(figures.memory_bytes) if figures.memory_bytes else "",
                    words.size(figures.disk_bytes) if figures.disk_bytes else "",
                )
            )
    if rows:
        typer.echo("\nEstimates:")
        print_table(
            ("STAGE", "PARAMETERS", "STEPS", "DEVICE MEMORY", "DISK"), [*rows, ("all", "", "", "", words.size(disk))]
        )


def _print_report(session: Session) -> None:
    """Where to look at the results."""
    node = session.nodes.get("report")
    artifact = node and session.store.find("report", node.fingerprint)
    if artifact:
        typer.echo(f"Report: {artifact.path(artifact.metrics['page'])}")


def _smoke_test(recipe: object, until: str | None) -> None:
    from flows.session.smoke_test import run_smoke_test

    made = run_smoke_test(recipe, until)
    typer.echo(f"Smoke-tested {', '.join(made)}: every stage ran at full size, and nothing is kept.")
    for name, artifact in made.items():
        if "parameters" in artifact.metrics:
            typer.echo(f"  {name}: {artifact.metrics['steps']} step of {artifact.metrics['parameters']:,} parameters")
