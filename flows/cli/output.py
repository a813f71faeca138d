"""What commands print on stdout: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

WIDTH = 100  # characters of a line of a table of scores
NARROWEST = 24  # characters of the last column of a table that must fit a width


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> None:
    """Columns as wide as their content; with `width`, the last one is wrapped so that lines fit it."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    indent = sum(widths) + 2 * len(widths)
    for line in lines:
        cells = [cell.ljust(size) for cell, size in zip(line, widths, strict=False)]
        last = [line[-1]]
        if width is not None:
            last = textwrap.wrap(line[-1], max(NARROWEST, width - indent)) or [""]
        typer.echo("  ".join([*cells, last[0]]).rstrip())
        for more in last[1:]:
            typer.echo(" " * indent + more)


def print_wide(head: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[int, Callable[[str], str]]) -> None:
    """A table as wide as the terminal, long cells folded, `styles` giving the colour of a column's cells; plain lines
    where stdout is no terminal."""
    if not sys.stdout.isatty():
        print_table(head, rows)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, styles[i](cell) if i in styles else "") for i, cell in enumerate(row)))
    Console().print(table)


def print_json(value: Any) -> None:
    """Indented JSON. Raises ValueError for NaN, which many JSON readers reject."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
