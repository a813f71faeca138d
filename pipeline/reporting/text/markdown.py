"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def piped(head: Sequence[str], rows: Sequence[Sequence[str]], names: int | None = None) -> str:
    """A table whose columns after the first `names` hold numbers, and stand at the right; None for no such columns."""
    names = len(head) if names is None else names
    ruler = ["---"] * names + ["---:"] * (len(head) - names)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, ruler, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
