"""`results`: the scores in the store, with their protocols."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import WIDTH, print_json, print_table
from flows.session.commands import as_typed

if TYPE_CHECKING:
    from storage.artifact import Artifact

SORTS = {"value": "value", "nfe": "nfe", "recipe": "recipe", "model": "model", "seconds": "seconds_per_image"}


def results(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Show this recipe only.")] = None,
    set_: Sets = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="NAME", help="Show this metric only.")] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="COLUMN", help=f"Sort by {', '.join(SORTS)}; -COLUMN to reverse.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Show only the best score of each recipe and model.")] = False,
    json_: Json = False,
) -> None:
    """Print every score with its protocol. Scores of different protocols are in different tables."""
    from flows.session.recipes import load
    from flows.views.scores import best_of, evaluations, numbers, of_metric
    from pipeline.recipe.load import nearest
    from storage.errors import UsageError

    if set_ and recipe is None:
        raise UsageError("--set needs a RECIPE", set_[0], "Name one: flowctl results RECIPE --set …, or omit --set.")
    artifacts = evaluations(None if recipe is None else load(recipe, set_ or ()), recipe and as_typed(recipe, set_))
    if sort is not None and sort.removeprefix("-") not in SORTS:
        raise UsageError("--sort must be a column", sort, nearest(sort, SORTS))

    scores = of_metric(numbers(artifacts), metric)
    scores = best_of(scores) if best else scores
    scores = _sorted(scores, sort) if sort else scores
    if json_:
        print_json(scores)
        return
    if not artifacts:
        typer.echo("No results yet. Run a recipe first: flowctl run nfm-digits")
    for protocol in dict.fromkeys(artifact.metrics["protocol"] for artifact in artifacts):
        alike = {artifact.fingerprint: artifact for artifact in artifacts if artifact.metrics["protocol"] == protocol}
        _print_protocol(list(alike.values()), [score for score in scores if score["evaluation"] in alike])


def _sorted(scores: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """By a column; scores without a value in it are last."""
    key, reverse = SORTS[sort.removeprefix("-")], sort.startswith("-")
    present = [score for score in scores if score[key] is not None]
    return sorted(present, key=lambda score: score[key], reverse=reverse) + [s for s in scores if s[key] is None]


def _print_protocol(evaluations: list[Artifact], scores: list[dict[str, Any]]) -> None:
    """The scores of evaluations that may be compared, a table for each metric, and the settings that they share."""
    from pipeline.reporting.text.numbers import significant

    if not scores:
        return
    sampled = [score for score in scores if score["digest"]]  # a likelihood has no samples
    shared = _agreed(sampled)
    by_model = {
        model: _agreed([score for score in sampled if score["model"] == model])
        for model in dict.fromkeys(score["model"] for score in sampled)
    }
    for metric in dict.fromkeys(score["metric"] for score in scores):
        typer.echo(metric)
        _print_metric([score for score in scores if score["metric"] == metric], by_model)
        typer.echo()
    first = evaluations[0].metrics
    floors = {first["scores"][0]["metric"]: first["floor"], **first.get("floors", {})}
    lines = [
        "floor (two halves of the data): "
        + ", ".join(f"{name} {significant(value, 4)}" for name, value in floors.items()),
        "front: no row of this metric is as good with a lower NFE (calls), or in fewer seconds per image (seconds)",
        f"protocol {first['protocol']}: {_facts(shared)}",
    ]
    lines += [f"{model}: {text}" for model, own in by_model.items() if (text := _facts(own, without=shared))]
    for evaluation in evaluations:
        of = f"{evaluation.name}: " * (len(evaluations) > 1)
        lines += [f"warning: {of}{text}" for text in evaluation.metrics["warnings"]]
    for line in lines:
        typer.echo("\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="  ")))
    typer.echo()


def _agreed(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of the protocol that all of these scores have alike, apart from the metric in the table's title."""
    first, *others = [score["protocol"] for score in scores] or [{}]
    agreed = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    return {key: value for key, value in agreed.items() if key != "metric"}


def _print_metric(scores: list[dict[str, Any]], by_model: dict[str, dict[str, Any]]) -> None:
    from pipeline.reporting.scores.cells import grid_note
    from pipeline.reporting.scores.table import grid_that_matters, ranked_grids
    from pipeline.reporting.text.numbers import significant

    owners: dict[str, set[str]] = {}
    for score in scores:
        owners.setdefault(score["recipe"], set()).add(score["evaluation"])
    used = [grid_that_matters(score["solver"], score["nfe"], score["protocol"]) for score in scores]
    grids = ranked_grids(used)
    print_table(
        ("RECIPE", "MODEL", "SOLVER", "NFE", "VALUE", "ERROR", "S/IMAGE", "FRONT", "OTHER SETTINGS"),
        [
            (
                score["recipe"] + f" {score['evaluation'][:8]}" * (len(owners[score["recipe"]]) > 1),
                score["model"],
                score["solver"],
                f"{score['nfe']:g}",
                significant(score["value"], 4) + "†" * (grid not in (None, *grids[:1])),
                *(
                    "" if value is None else significant(value, 2)
                    for value in (score["error"], score["seconds_per_image"])
                ),
                "+".join(cost for cost, on in score["front"].items() if on),
                _facts(score["protocol"], without={**by_model.get(score["model"], {}), "metric": None}),
            )
            for score, grid in zip(scores, used, strict=True)
        ],
        WIDTH,
    )
    if len(grids) > 1:
        typer.echo(grid_note(grids))


def _facts(protocol: dict[str, Any], without: dict[str, Any] | None = None) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key not in (without or {}))
