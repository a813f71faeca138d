"""`compare`: recipes side by side, in one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json


def compare(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE RECIPE ...", help="Shipped names or YAML files.")],
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="0,1,2", help="Compare each recipe at these seeds, by mean and spread; else at its own."
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="First make what is missing, one recipe and seed after another.")
    ] = False,
    set_: Sets = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="The plot: .png, .svg or .pdf; compare.png unless --json is given."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page: charts, sample grids, tables.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json_: Json = False,
) -> None:
    """Fréchet distance against network calls for several recipes of one protocol: table, plot, costs, diagnostics."""
    from flows.views import comparison
    from pipeline.reporting.compare import compare as side_by_side
    from storage.errors import InputError
    from storage.store import Store

    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError("--plot ends in .png, .svg or .pdf", str(plot), "Choose such a name")
    if json_ and markdown:
        raise InputError("compare prints in one way", "--json and --markdown", "Leave one of them out")
    items = comparison.wanted(recipes, _numbers(seeds), set_ or ())
    table = side_by_side(comparison.collect(items, Store(), run, lambda text: typer.echo(text, err=True)))
    if json_:
        print_json(table.to_json())
    else:
        typer.echo(table.markdown() if markdown else table.text())
    if html is not None:
        from pipeline.reporting.compare import comparison_page
        from storage.atomic import write_text

        write_text(html, comparison_page(table, comparison.evaluations(items, Store())))
        typer.echo(f"Page: {html}", err=json_)
    if plot is not None or not json_:
        drawn = table.plot(plot or Path("compare.png"))
        typer.echo(f"Plot: {drawn}", err=json_)


def _numbers(text: str | None) -> list[int]:
    """0,1,2 as numbers, each once."""
    from storage.errors import InputError

    parts = [] if text is None else text.split(",")
    if text is not None and (len(set(parts)) < len(parts) or not all(part.strip().isdecimal() for part in parts)):
        raise InputError("--seeds lists different whole numbers", text, "Example: --seeds 0,1,2")
    return [int(part) for part in parts]
