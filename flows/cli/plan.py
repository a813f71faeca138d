"""`plan`: the action of `run` for each stage, the reason, and the resources needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Force, Json, Recipe, Remote, Sets, Until
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from flows.session.session import Session
    from pipeline.engine.plan import Step
    from pipeline.training.forecast import StageTime


def plan(
    recipe: Recipe,
    set_: Sets = None,
    force: Force = None,
    until: Until = None,
    remote: Remote = None,
    dag: Annotated[bool, typer.Option("--dag", help="Print the DAG as Mermaid, with each stage's action.")] = False,
    json_: Json = False,
) -> None:
    """Show for each stage whether `run` would reuse, fetch, resume or run it, and why; estimate cost and time."""
    from flows.session import forecasts
    from flows.session.recipes import load
    from flows.session.session import Session
    from pipeline.engine.plan import outline
    from pipeline.engine.plan import plan as make_plan
    from storage.remote import default_remote

    session = Session.open(load(recipe, set_ or ()), force or (), until)
    steps = make_plan(session.nodes, session.store, session.force, default_remote(remote))
    if json_:
        print_json(forecasts.with_times(outline(steps), forecasts.stage_times(session, steps)))
    elif dag:
        typer.echo(_mermaid(steps))
    else:
        print_plan(steps)
        _print_estimates(session, steps)


def _mermaid(steps: list[Step]) -> str:
    """The stages and their inputs as a flowchart, coloured by action."""
    ids = {step.node.name: step.node.name.replace("-", "_") for step in steps}
    lines = ["flowchart LR"]
    lines += [f'  {ids[step.node.name]}["{step.node.name}<br/>{step.action}"]:::{step.action}' for step in steps]
    lines += [
        f"  {ids[source.name]} --> {ids[step.node.name]}" for step in steps for source in step.node.inputs.values()
    ]
    colours = {"reuse": "#d4edda", "fetch": "#d1ecf1", "resume": "#fff3cd", "run": "#f8d7da"}
    return "\n".join(lines + [f"  classDef {action} fill:{colour},color:#000" for action, colour in colours.items()])


def print_plan(steps: list[Step]) -> None:
    print_table(("STAGE", "ACTION", "WHY"), [(step.node.name, step.action, step.reason) for step in steps])


def _print_estimates(session: Session, steps: list[Step]) -> None:
    """Estimate the stages that have no result yet. Networks are described for this, not built."""
    ahead = [step for step in steps if step.action not in ("reuse", "fetch")]
    if not ahead:
        return
    from flows.session import forecasts, words
    from pipeline.training.estimate import estimate

    times = forecasts.stage_times(session, steps)
    measured = next((step.artifact.metrics for step in steps if step.node.name == "data" and step.artifact), None)
    rows, disk = [], 0
    for step in ahead:
        figures = estimate(step.node, measured)
        disk += figures.disk_bytes or 0
        rows.append(
            (
                step.node.name,
                f"{figures.parameters:,}" if figures.parameters else "",
                f"{figures.steps:,}" if figures.steps else "",
                words.size(figures.memory_bytes) if figures.memory_bytes else "",
                words.size(figures.disk_bytes) if figures.disk_bytes else "",
                *time_and_basis(times.get(step.node.name)),
            )
        )
    typer.echo("\nEstimates:")
    print_table(
        ("STAGE", "PARAMETERS", "STEPS", "DEVICE MEMORY", "DISK", "TIME", "TIME IS"),
        [*rows, ("all", "", "", "", words.size(disk), *in_all(list(times.values())))],
    )


def time_and_basis(time: StageTime | None) -> tuple[str, str]:
    """A stage's time, and whether it comes from measured rates or from an estimate."""
    from flows.session import words

    return ("", "unknown") if time is None else (words.duration(time.seconds), words.basis(time.measured))


def in_all(times: list[StageTime | None]) -> tuple[str, str]:
    """The same of all stages; unknown ones are left out, and the sum says so."""
    from flows.session import words
    from pipeline.training.forecast import measured_share

    known = [time for time in times if time is not None]
    total, share = (
        sum(time.seconds for time in known),
        measured_share([(time.seconds, time.measured) for time in known]),
    )
    return ("over " * (len(known) < len(times)) + words.duration(total), words.basis(share))
