"""`status`, `results`, `report`: what is being made now, by any process, the numbers there are, and their page."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.options import Json, Recipe, Sets
from flows.cli.output import print_json, print_table


def status(json_: Json = False) -> None:
    """Stages that are running or were stopped, in this store: progress, rate, time left, memory, last save."""
    from flows.upkeep.status import unfinished
    from storage.store import Store

    store = Store()
    found = unfinished(store)
    if json_:
        print_json(found)
    elif found:
        print_table(
            ("STAGE", "STATE", "RECIPE", "PROCESS", "PROGRESS", "MEMORY", "DATA WAIT", "LAST SAVE"),
            [_row(item) for item in found],
        )
    else:
        typer.echo(f"Nothing is running in {store.home}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    import time

    from flows.session import words
    from pipeline.runtime.job import ProgressUpdate

    progress, saved = "", "nothing yet"
    if item["done"] is not None:
        progress = words.moment(
            ProgressUpdate(item["stage"], item["done"], item["total"], item["unit"], item["rate"] or 0.0, item["facts"])
        )
    if item["waits_for"] is not None:
        progress, saved = f"waiting for {item['waits_for']}", ""
    if item["saved"] is not None:
        saved = (
            f"{item['saved']['done']:,} {item['saved']['unit']}, "
            f"{words.duration(time.time() - item['saved']['time'])} ago"
        )
    facts = item["facts"] if item["state"] == "running" else {}
    used = [
        f"{facts[name]:,.0f} MiB{of}"
        for name, of in (("memory_mib", ""), ("gpu_memory_mib", " of the GPU"))
        if name in facts
    ]
    waited = f"{facts['data_wait']:.1%}" if "data_wait" in facts else ""
    return (
        f"{item['stage']} {item['fingerprint'][:8]}",
        item["state"],
        item["recipe"] or "",
        str(item["pid"] or ""),
        progress,
        ", ".join(used),
        waited,
        saved,
    )


def results(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Only this recipe's.")] = None,
    set_: Sets = None,
    json_: Json = False,
) -> None:
    """Every measured number with its protocol. Numbers of different protocols stand in different tables."""
    from flows.views.scores import evaluations, numbers
    from storage.errors import InputError

    if set_ and recipe is None:
        raise InputError(
            "--set changes a recipe's fields, and none is named",
            set_[0],
            "Name it, flowctl results RECIPE --set …, or leave --set out",
        )
    found = evaluations(recipe, set_ or ())
    if json_:
        print_json(numbers(found))
        return
    if not found:
        typer.echo("No results yet: `flowctl run nfm-digits` makes some.")
    for protocol in dict.fromkeys(artifact.metrics["protocol"] for artifact in found):
        _print_protocol([artifact for artifact in found if artifact.metrics["protocol"] == protocol])


def report(
    recipe: Recipe,
    set_: Sets = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Where the finished report of a recipe lies: one HTML file."""
    from flows.session.recipes import load
    from flows.session.session import Session
    from pipeline.engine.rerun import valid_artifact
    from storage.errors import InputError

    session = Session.finished(load(recipe, set_ or ()))
    artifact = valid_artifact(session.nodes["report"], session.store)
    if artifact is None:
        raise InputError("report needs a finished run", recipe, f"`flowctl run {recipe}` makes it")
    page = artifact.path(artifact.metrics["page"])
    typer.echo(str(page))
    if open_:
        typer.launch(page.as_uri())


def _print_protocol(evaluations: list[Any]) -> None:
    """The scores of evaluations that may be compared, and what they share."""
    from flows.views.scores import numbers
    from pipeline.reporting.text.numbers import significant

    scores = numbers(evaluations)
    order = list(dict.fromkeys(score["metric"] for score in scores))
    scores.sort(key=lambda score: order.index(score["metric"]))  # each metric by itself
    ours = [score["protocol"] for score in scores if score["digest"]]  # a likelihood is of no samples
    shared = {key: value for key, value in ours[0].items() if all(other.get(key) == value for other in ours)}
    print_table(
        ("RECIPE", "MODEL", "SOLVER", "NFE", "METRIC", "VALUE", "ERROR", "S/IMAGE", "FRONT", "APART FROM THAT"),
        [
            (
                f"{score['recipe']} {score['evaluation'][:8]}",
                score["model"],
                score["solver"],
                f"{score['nfe']:g}",
                score["metric"],
                *(
                    "" if value is None else significant(value, digits)
                    for value, digits in ((score["value"], 4), (score["error"], 2), (score["seconds_per_image"], 2))
                ),
                "+".join(cost for cost, on in score["front"].items() if on),
                _facts(score["protocol"], without={**shared, "metric": None}),
            )
            for score in scores
        ],
    )
    first = evaluations[0].metrics
    typer.echo(
        f"floor (two halves of the data): {significant(first['floor'], 4)}"
        + "".join(f", {metric} {significant(value, 4)}" for metric, value in first.get("floors", {}).items())
    )
    typer.echo("front: nothing above is as good with fewer calls, or in fewer seconds per image")
    typer.echo(f"protocol {first['protocol']}: {_facts(shared)}\n")


def _facts(protocol: dict[str, Any], without: dict[str, Any] | None = None) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key not in (without or {}))
