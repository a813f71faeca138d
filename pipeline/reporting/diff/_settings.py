"""Where the settings of two sides differ."""

from __future__ import annotations

from pipeline.recipe.changes import Change, changes
from pipeline.reporting.diff._operands import Side


def settings(a: Side, b: Side) -> list[Change]:
    """What differs: of two recipes all fields; else what artifacts record, of the stages that both sides know."""
    if a.settings is not None and b.settings is not None:
        return changes(a.settings, b.settings)
    common = [name for name in a.stages if name in b.stages]
    one, other = ({name: side.stages[name].settings for name in common} for side in (a, b))
    return changes(one, other)
