"""`compare`: several recipes in one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json, Sweeps
from flows.cli.output import check_out, print_json


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE RECIPE ...",
            help="Names of shipped recipes or of runs, or YAML files; NAME@1 is its seed 1.",
        ),
    ],
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="0,1,2", help="Compare mean and spread over these seeds; default: each recipe's seed."
        ),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="First run the recipes and seeds that have no results.")] = False,
    set_: Sweeps = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Plot to write: .png, .svg or .pdf; default compare.png."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page: charts, sample grids, tables.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json_: Json = False,
) -> None:
    """Compare Fréchet distance against NFE for recipes of one protocol: table, plot, costs, diagnostics."""
    from flows.session.display import say
    from flows.views import comparison
    from pipeline.reporting.compare import compare as compare_runs
    from storage.errors import UsageError
    from storage.store import Store

    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError("--plot must end in .png, .svg or .pdf", str(plot), "Change the file name.")
    if json_ and markdown:
        raise UsageError("Only one output format is allowed", "--json and --markdown", "Omit one of them.")
    if plot is None and not json_:
        plot = Path("compare.png")
    for out in (plot, html):
        if out is not None:
            check_out(out)
    requests = comparison.requests(recipes, _numbers(seeds), set_ or ())
    table = compare_runs(comparison.collect(requests, Store(), run, say))
    if json_:
        print_json(table.to_json())
    else:
        typer.echo(table.markdown() if markdown else table.text())
    if html is not None:
        from pipeline.reporting.compare import comparison_page
        from storage.atomic import write_text

        write_text(html, comparison_page(table, comparison.evaluations(requests, Store())))
        typer.echo(f"Page: {html}", err=json_)
    if plot is not None:
        typer.echo(f"Plot: {table.plot(plot)}", err=json_)


def _numbers(text: str | None) -> list[int]:
    """The seeds in "0,1,2". Raises UsageError for duplicates and for other text."""
    from storage.errors import UsageError

    parts = [] if text is None else text.split(",")
    if text is not None and (len(set(parts)) < len(parts) or not all(part.strip().isdecimal() for part in parts)):
        raise UsageError("--seeds must be distinct whole numbers", text, "Example: --seeds 0,1,2.")
    return [int(part) for part in parts]
