"""Commands that remedies name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def as_typed(recipe: str, changes: Sequence[str] | None) -> str:
    """A recipe and its changes as the words of a command."""
    return shlex.join([recipe, *(word for change in changes or () for word in ("--set", change))])
