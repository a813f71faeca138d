"""`status` and `results`: what is being made now, by any process, and the numbers that there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json, print_table


def status(json_: Json = False) -> None:
    """Stages that are running or were stopped, in this store: progress, rate, time left, memory, last save."""
    from flows.status import unfinished
    from storage.store import Store

    store = Store()
    found = unfinished(store)
    if json_:
        print_json(found)
    elif found:
        print_table(("STAGE", "STATE", "RECIPE", "PROCESS", "PROGRESS", "MEMORY", "DATA WAIT", "LAST SAVE"),
                    [_row(item) for item in found])
    else:
        typer.echo(f"Nothing is running in {store.home}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    import time

    from flows import words
    from pipeline.job import Report

    progress, saved = "", "nothing yet"
    if item["done"] is not None:
        progress = words.moment(Report(item["stage"], item["done"], item["total"], item["unit"], item["rate"] or 0.0,
                                       item["facts"]))
    if item["saved"] is not None:
        saved = (f"{item['saved']['done']:,} {item['saved']['unit']}, "
                 f"{words.duration(time.time() - item['saved']['time'])} ago")
    facts = item["facts"] if item["state"] == "running" else {}
    used = [f"{facts[name]:,.0f} MiB{of}" for name, of in (("memory_mib", ""), ("gpu_memory_mib", " of the GPU"))
            if name in facts]
    waited = f"{facts['data_wait']:.1%}" if "data_wait" in facts else ""
    return (item["stage"], item["state"], item["recipe"] or "", str(item["pid"] or ""), progress, ", ".join(used),
            waited, saved)


def results(recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Only this recipe's.")] = None,
            set_: Sets = None, json_: Json = False) -> None:
    """Every measured number with its protocol. Numbers of different protocols stand in different tables."""
    from flows.scores import evaluations

    found = evaluations(recipe, set_ or ())
    if json_:
        print_json([{key: score[key] for key in ("model", "solver", "nfe", "metric", "value", "protocol")}
                    | {"recipe": artifact.name} for artifact in found for score in artifact.metrics["scores"]])
        return
    if not found:
        typer.echo("No results yet: `flowctl run nfm-digits` makes some.")
    for protocol in dict.fromkeys(artifact.metrics["protocol"] for artifact in found):
        _print_protocol([artifact for artifact in found if artifact.metrics["protocol"] == protocol])


def _print_protocol(evaluations: list[Any]) -> None:
    """The scores of evaluations that may be compared, and what they share."""
    scores = [(artifact, score) for artifact in evaluations for score in artifact.metrics["scores"]]
    shared = {key: value for key, value in scores[0][1]["protocol"].items()
              if all(score["protocol"].get(key) == value for _, score in scores)}
    print_table(("RECIPE", "MODEL", "SOLVER", "NFE", "METRIC", "VALUE", "APART FROM THAT"), [
        (f"{artifact.name} {artifact.fingerprint[:8]}", score["model"], score["solver"], f"{score['nfe']:g}",
         score["metric"], f"{score['value']:.4g}", _facts(score["protocol"], without=shared))
        for artifact, score in scores])
    typer.echo(f"floor (two halves of the data): {evaluations[0].metrics['floor']:.4g}")
    typer.echo(f"protocol {evaluations[0].metrics['protocol']}: {_facts(shared)}\n")


def _facts(protocol: dict[str, Any], without: dict[str, Any] | None = None) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key not in (without or {}))
