"""Where two plain trees of settings differ, and values in text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Absent:
    """There is no such field on this side."""

    def __repr__(self) -> str:
        return "–"


ABSENT = Absent()


@dataclass(frozen=True)
class Change:
    """A field, as one writes it after `--set`, with its value on both sides; ABSENT where a side has no such field."""

    path: str
    a: Any
    b: Any

    def to_json(self) -> dict[str, Any]:
        """Without the side that has no such field: null would be a value."""
        return {"path": self.path} | {
            side: value for side, value in (("a", self.a), ("b", self.b)) if value is not ABSENT
        }


def changes(a: Any, b: Any, path: str = "") -> list[Change]:
    """The fields that differ between two trees, in the order of the first; lists of one length item by item."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return [
            change
            for key in dict.fromkeys([*a, *b])
            for change in changes(a.get(key, ABSENT), b.get(key, ABSENT), f"{path}.{key}" if path else str(key))
        ]
    both = isinstance(a, list | tuple) and isinstance(b, list | tuple)
    if both and len(a) == len(b) and all(isinstance(item, Mapping) for item in (*a, *b)):
        return [
            change
            for i, (one, other) in enumerate(zip(a, b, strict=True))
            for change in changes(one, other, f"{path}[{i}]")
        ]
    if both:
        a, b = list(a), list(b)
    return [] if (type(a) is type(b) and a == b) or _same_number(a, b) else [Change(path, a, b)]


def one_line(value: Any) -> str:
    """The whole value as YAML on one line; "–" for ABSENT."""
    if value is ABSENT:
        return repr(value)
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=sys.maxsize, sort_keys=False)
    return text.removesuffix("\n").removesuffix("...").strip()


def _same_number(a: Any, b: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return numbers and a == b
