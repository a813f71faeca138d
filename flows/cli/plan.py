"""`plan`: the action of `run` for each stage, the reason, and the resources needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Force, Json, Recipe, Remote, Sweeps, Until
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from flows.session.session import Session
    from pipeline.cost.forecast import StageTime
    from pipeline.engine.plan import Step
    from pipeline.recipe.recipe import Recipe as Settings
    from pipeline.recipe.sweep import Point
    from storage.remote import Remote as RemoteStore


def plan(
    recipe: Recipe,
    set_: Sweeps = None,
    force: Force = None,
    until: Until = None,
    remote: Remote = None,
    dag: Annotated[bool, typer.Option("--dag", help="Print the DAG as Mermaid, with each stage's action.")] = False,
    on: Annotated[
        str | None, typer.Option("--on", metavar="GPU", help="Estimate times on this GPU, e.g. H100, A100 or L4.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show for each stage whether `run` would reuse, fetch, resume or run it, and why; estimate cost and time."""
    from flows.session import forecasts, reruns
    from flows.session.recipes import sweep
    from flows.session.session import Session
    from pipeline.engine.plan import outline
    from pipeline.engine.plan import plan as make_plan
    from storage.errors import UsageError
    from storage.remote import default_remote

    if json_ and dag:
        raise UsageError("A plan must be printed in one format", "--json --dag", "Leave one of them out.")
    if on:
        from pipeline.cost.speeds import check_known_gpu

        check_known_gpu(on)
    recipes = sweep(recipe, set_ or ())
    if len(recipes) > 1:
        _sweep(recipes, force or (), until, default_remote(remote), dag, on, json_)
        return
    session = Session.open(recipes[0][0], force or (), until)
    steps = make_plan(session.nodes, session.store, reruns.not_yet_rerun([session]), default_remote(remote))
    if json_:
        print_json(forecasts.with_times(outline(steps), forecasts.stage_times(session, steps, on)))
    elif dag:
        typer.echo(_mermaid(steps))
    else:
        print_plan(steps)
        _print_estimates(steps, [(session, steps)], on)


def _sweep(
    recipes: list[tuple[Settings, Point]],
    force: Sequence[str],
    until: str | None,
    remote: RemoteStore | None,
    dag: bool,
    on: str | None,
    json_: bool,
) -> None:
    """The plan of a sweep: each stage once, with the runs that need it."""
    from flows.orchestration.sweeps import open_sweep, shared_steps
    from flows.session import forecasts
    from pipeline.engine.plan import outline

    runs = open_sweep(recipes, force, until, remote)
    shared = list(shared_steps(runs))
    steps = [step for step, _ in shared]
    if json_:
        times: dict[str, StageTime | None] = {}
        for run in runs:
            times |= forecasts.stage_times(run.session, run.steps, on)
        lines = forecasts.with_times(outline(steps), times)
        print_json([{**line, "runs": [run.name for run in of]} for line, (_, of) in zip(lines, shared, strict=True)])
    elif dag:
        typer.echo(_mermaid(steps))
    else:
        print_table(
            ("STAGE", "ACTION", "RUNS", "WHY"),
            [(step.node.name, step.action, _runs(step, len(of), len(runs)), step.reason) for step, of in shared],
        )
        _print_estimates(steps, [(run.session, run.steps) for run in runs], on)


def _runs(step: Step, of: int, all_: int) -> str:
    """Which runs of a sweep need a stage: by its name where not all of them do."""
    return f"all {all_}" if of == all_ else step.node.label + (f" ({of})" if of > 1 else "")


def _mermaid(steps: list[Step]) -> str:
    """The stages and their inputs as a flowchart, coloured by action."""
    names = [step.node.name for step in steps]
    # In a sweep a stage is there several times.
    unique = {
        step.node.fingerprint: (step.node.name, "")
        if names.count(step.node.name) == 1
        else (f"{step.node.name}_{step.node.fingerprint[:8]}", f"<br/>{step.node.label}")
        for step in steps
    }
    ids = {fingerprint: name.replace("-", "_") for fingerprint, (name, _) in unique.items()}
    lines = ["flowchart LR"]
    for step in steps:
        own, label = ids[step.node.fingerprint], unique[step.node.fingerprint][1]
        lines.append(f'  {own}["{step.node.name}{label}<br/>{step.action}"]:::{step.action}')
    lines += [
        f"  {ids[source.fingerprint]} --> {ids[step.node.fingerprint]}"
        for step in steps
        for source in step.node.inputs.values()
    ]
    colours = {"reuse": "#d4edda", "fetch": "#d1ecf1", "resume": "#fff3cd", "run": "#f8d7da"}
    return "\n".join(lines + [f"  classDef {action} fill:{colour},color:#000" for action, colour in colours.items()])


def print_plan(steps: list[Step]) -> None:
    print_table(("STAGE", "ACTION", "WHY"), [(step.node.name, step.action, step.reason) for step in steps])


def _print_estimates(steps: list[Step], runs: list[tuple[Session, list[Step]]], gpu: str | None) -> None:
    """Estimate the stages of these runs that have no result yet. Networks are described for this, not built."""
    ahead = [step for step in steps if step.action not in ("reuse", "fetch")]
    if not ahead:
        return
    from flows.session import forecasts, words
    from pipeline.cost.estimate import estimate

    times: dict[str, StageTime | None] = {}
    processes: dict[str, int] = {}
    for session, own in runs:
        times |= forecasts.stage_times(session, own, gpu)
        processes |= dict.fromkeys((step.node.fingerprint for step in own), session.recipe.compute.world)
    measured = next((step.artifact.metrics for step in steps if step.node.name == "data" and step.artifact), None)
    rows, disk = [], 0
    for step in ahead:
        figures = estimate(step.node, measured, processes[step.node.fingerprint])
        disk += figures.disk_bytes or 0
        rows.append(
            (
                step.node.name,
                f"{figures.parameters:,}" if figures.parameters else "",
                f"{figures.steps:,}" if figures.steps else "",
                words.size(figures.memory_bytes) if figures.memory_bytes else "",
                words.size(figures.disk_bytes) if figures.disk_bytes else "",
                *time_and_basis(times.get(step.node.fingerprint)),
            )
        )
    typer.echo(f"\nEstimates{f' on {gpu}' if gpu else ''}:")
    print_table(
        ("STAGE", "PARAMETERS", "STEPS", "DEVICE MEMORY", "DISK", "TIME", "TIME IS"),
        [*rows, ("all", "", "", "", words.size(disk) if disk else "", *in_all(list(times.values())))],
    )


def time_and_basis(time: StageTime | None) -> tuple[str, str]:
    """A stage's time, and whether it comes from measured rates or from an estimate."""
    from flows.session import words

    return ("", "unknown") if time is None else (words.duration(time.seconds), words.basis(time.measured))


def in_all(times: list[StageTime | None]) -> tuple[str, str]:
    """The same of all stages; unknown ones are left out, and the sum says so."""
    from flows.session import words
    from pipeline.cost.forecast import measured_share

    known = [time for time in times if time is not None]
    if not known:
        return "", "unknown"
    total, share = (
        sum(time.seconds for time in known),
        measured_share([(time.seconds, time.measured) for time in known]),
    )
    return ("over " * (len(known) < len(times)) + words.duration(total), words.basis(share))
