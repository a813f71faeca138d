"""The page of `python -m benchmarks.gpu`: a table for each part, columns as its rows name them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    failed = [part["name"] for part in result["parts"] if "error" in part]
    lines = [
        f"# One call on {result['device']}",
        "",
        f"`{result['command']}`: {result['seconds']:.0f} s of {60 * result['minutes']:.0f} s. "
        + (f"Parts that failed: {', '.join(failed)}." if failed else "Every part ended well."),
    ]
    if result["quick"]:
        lines += ["", "With `--quick` networks are small and rounds few: a proof that the parts work, no measurement."]
    for part in result["parts"]:
        lines += ["", f"## {part.get('title', part['name'])}", "", f"Part `{part['name']}`, {part['seconds']:.0f} s."]
        for _, rows in groupby(part["rows"], key=tuple):  # rows of the same columns share a table
            lines += ["", *table(list(rows))]
        if "error" in part:
            lines += ["", "It failed:", "", "```", *part["error"].strip().splitlines(), "```"]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of the same keys as a Markdown table; numbers to the right."""
    keys = list(rows[0])
    numeric = [all(_is_number(row[key]) for row in rows) for key in keys]
    return [
        "| " + " | ".join(key.replace("_", " ") for key in keys) + " |",
        "|" + "|".join("---:" if number else "---" for number in numeric) + "|",
        *("| " + " | ".join(_cell(row[key]) for key in keys) + " |" for row in rows),
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() if value and not 1e-3 <= abs(value) < 1e6:
            return f"{value:.1e}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|")
