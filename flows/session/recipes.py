"""Recipes by name: a shipped name, a file, or the name of a run in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.session.runs import records
from pipeline.recipe.load import changed, nearest, shipped
from pipeline.recipe.load import load as load_given
from pipeline.recipe.recipe import Recipe
from storage.errors import MissingError
from storage.store import Store

_PLACE = ("nnodes", "node_rank", "rendezvous")  # which machine of how many ran it: each command says that again


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name, with `a.b=value` overrides: a shipped recipe, a file, or else the recipe that the latest
    `flowctl run` of this name recorded, so that its `--set` options need not be repeated.

    Raises MissingError for an unknown name, RecipeError for an invalid recipe.
    """
    if given(name):
        return load_given(name, overrides)
    store = Store()
    recorded = _recorded(store)
    if name not in recorded:
        raise MissingError(
            "A recipe must be a YAML file, a shipped name or the name of a run",
            name,
            f"{nearest(name, [*shipped(), *recorded])}. Runs in {store.home}: {', '.join(sorted(recorded)) or 'none'}",
        )
    tree = recorded[name]
    if isinstance(tree.get("compute"), dict):
        tree["compute"] = {key: value for key, value in tree["compute"].items() if key not in _PLACE}
    return changed(tree, overrides, f"{name}, as its latest run recorded it,")


def given(name: str) -> bool:
    """Whether it names a shipped recipe or a file. These take precedence over runs of that name."""
    return name in shipped() or name.endswith((".yaml", ".yml"))


def known(name: str) -> bool:
    """Whether `load` has a recipe, valid or not, under this name."""
    return given(name) or name in _recorded(Store())


def names() -> list[str]:
    """All names that `load` takes, apart from files."""
    return sorted({*shipped(), *_recorded(Store())})


def _recorded(store: Store) -> dict[str, dict[str, Any]]:
    """By name, the whole recipe of the latest `flowctl run`. A repair of an older artifact does not change a name."""
    return {
        facts["name"]: facts["recipe"]
        for facts in records(store.home)
        if isinstance(facts["name"], str)
        and isinstance(facts.get("recipe"), dict)
        and facts.get("command", "run") == "run"
    }
