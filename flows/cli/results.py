"""`results`: the scores in the store, with their protocols."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json, print_table


def results(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Show this recipe only.")] = None,
    set_: Sets = None,
    json_: Json = False,
) -> None:
    """Print every score with its protocol. Scores of different protocols are in different tables."""
    from flows.views.scores import evaluations, numbers
    from storage.errors import UsageError

    if set_ and recipe is None:
        raise UsageError("--set needs a RECIPE", set_[0], "Name one: flowctl results RECIPE --set …, or omit --set.")
    artifacts = evaluations(recipe, set_ or ())
    if json_:
        print_json(numbers(artifacts))
        return
    if not artifacts:
        typer.echo("No results yet. Run a recipe first: flowctl run nfm-digits")
    for protocol in dict.fromkeys(artifact.metrics["protocol"] for artifact in artifacts):
        _print_protocol([artifact for artifact in artifacts if artifact.metrics["protocol"] == protocol])


def _print_protocol(evaluations: list[Any]) -> None:
    """The scores of evaluations that may be compared, and the settings that they share."""
    from flows.views.scores import numbers
    from pipeline.reporting.text.numbers import significant

    scores = numbers(evaluations)
    order = list(dict.fromkeys(score["metric"] for score in scores))
    scores.sort(key=lambda score: order.index(score["metric"]))  # grouped by metric
    protocols = [score["protocol"] for score in scores if score["digest"]]  # a likelihood has no samples
    shared = {key: value for key, value in protocols[0].items() if all(other.get(key) == value for other in protocols)}
    print_table(
        ("RECIPE", "MODEL", "SOLVER", "NFE", "METRIC", "VALUE", "ERROR", "S/IMAGE", "FRONT", "OTHER SETTINGS"),
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
    typer.echo("front: no row of this table is as good with a lower NFE, or in fewer seconds per image")
    typer.echo(f"protocol {first['protocol']}: {_facts(shared)}\n")


def _facts(protocol: dict[str, Any], without: dict[str, Any] | None = None) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key not in (without or {}))
