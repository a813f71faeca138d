"""What a user calls a recipe: a shipped name, a file, or the name of a run in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.session.runs import records
from pipeline.recipe.load import changed, nearest, shipped
from pipeline.recipe.load import load as load_given
from pipeline.recipe.recipe import Recipe
from storage.errors import InputError
from storage.store import Store

_PLACE = ("nnodes", "node_rank", "rendezvous")  # which machine of how many ran it: each command says that anew


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name after `a.b=value` overrides: shipped or a file, else as the latest run so named recorded
    it, so that `--set name=mine` need not be said again with all that went with it. Raises InputError.
    """
    if given(name):
        return load_given(name, overrides)
    store = Store()
    recorded = _recorded(store)
    if name not in recorded:
        raise InputError(
            "A recipe is a YAML file, a shipped name or the name of a run",
            name,
            f"{nearest(name, [*shipped(), *recorded])}. Runs in {store.home}: {', '.join(sorted(recorded)) or 'none'}",
        )
    tree = recorded[name]
    if isinstance(tree.get("compute"), dict):
        tree["compute"] = {key: value for key, value in tree["compute"].items() if key not in _PLACE}
    return changed(tree, overrides, f"{name}, as its latest run recorded it,")


def given(name: str) -> bool:
    """Whether it names a shipped recipe or a file: these come before runs of that name."""
    return name in shipped() or name.endswith((".yaml", ".yml"))


def known(name: str) -> bool:
    """Whether `load` finds something, sound or not, under this name."""
    return given(name) or name in _recorded(Store())


def names() -> list[str]:
    """All that `load` takes, apart from files."""
    return sorted({*shipped(), *_recorded(Store())})


def _recorded(store: Store) -> dict[str, dict[str, Any]]:
    """By name, the whole recipe of the latest run."""
    return {
        facts["name"]: facts["recipe"]
        for facts in records(store.home)
        if isinstance(facts["name"], str) and isinstance(facts.get("recipe"), dict)
    }
