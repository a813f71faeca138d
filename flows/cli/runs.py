"""`runs`: all recorded runs in one table."""

from __future__ import annotations

import csv
import sys
from typing import Annotated, Any

import typer

from flows.cli.options import Json
from flows.cli.output import print_json, print_wide
from pipeline.recipe.changes import one_line

STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red", "killed": "red"}
HEAD = ("RUN", "SEED", "STATE", "DIFFERS FROM ITS RECIPE", "BEST SCORE", "BY", "TIME", "STARTED")


def runs(
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="Metric of the score; default: the first evaluated.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="A=B", help="Only runs with this value; also != < <= > >= (repeatable)."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="COLUMN", help="Column or field of the recipe; -COLUMN for descending order."),
    ] = None,
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the latest run of each recipe, seed and settings: state, what differs from the recipe, best score, time."""
    from flows.views import runs as view
    from storage.errors import UsageError
    from storage.store import Store

    if json_ and csv_:
        raise UsageError("Only one output format is allowed", "--json and --csv", "Omit one of them.")
    store = Store()
    every = view.runs(store, metric)
    rows = view.where(every, where or ())
    rows = view.sort(rows, sort) if sort else rows
    if json_:
        print_json(rows)
    elif csv_:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        columns = [*view.COLUMNS, "outcome"]
        writer.writerow([*columns, "changes"])
        writer.writerows([*(row[column] for column in columns), _changes(row)] for row in rows)
    elif rows:
        print_runs(rows)
    else:
        typer.echo(f"{'No run meets --where' if every else 'No runs'} in {store.home}")


def print_runs(rows: list[dict[str, Any]]) -> None:
    print_wide(HEAD, [_cells(row) for row in rows], {2: lambda state: STYLES[state]})


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    import time

    from flows.session import words
    from pipeline.reporting.text.numbers import significant

    scored = row["score"] is not None
    return (
        row["name"],
        str(row["seed"]),
        row["state"],
        _changes(row),
        f"{row['metric']} {significant(row['score'], 4)}" if scored else "",
        f"{row['model']}, NFE {row['nfe']:g}" if scored else "",
        "" if row["seconds"] is None else words.duration(row["seconds"]),
        "" if row["began"] is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(row["began"])),
    )


def _changes(row: dict[str, Any]) -> str:
    return " ".join(f"{path}={one_line(value)}" for path, value in row["changes"].items())
