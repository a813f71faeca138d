"""What commands print on stdout: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from storage.errors import UsageError

WIDTH = 100  # characters of a line of a table of scores
NARROWEST = 24  # characters of the last column of a table that must fit a width


def check_out(path: Path, folder: bool = False) -> None:
    """Before time is spent on what is written there. Raises UsageError where no file or, with `folder`, no new folder
    can be."""
    if folder and path.is_dir() and any(path.iterdir()):
        raise UsageError("The output must be a new or empty folder", str(path), "Choose another folder.")
    if folder and path.is_file():
        raise UsageError("The output must be a folder", f"{path}, which is a file", "Choose another name.")
    if not folder and path.is_dir():
        raise UsageError("The output must be a file", f"{path}, which is a folder", "Choose another name.")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError("The output must lie in a folder", f"{above}, which is a file", "Choose another folder.")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UsageError(
            "The output must be in a folder that can be written to",
            f"{above} ({error.strerror})",
            "Choose another one.",
        ) from None


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
