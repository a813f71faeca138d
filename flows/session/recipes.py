"""Recipes by name: a shipped name, a file, or the name of a run in the store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.session.runs import latest
from pipeline.engine.provenance import COMMAND
from pipeline.recipe.load import SHIPPED, changed, nearest, read, shipped
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sweep import Point, points
from storage.errors import MissingError, RecipeError
from storage.store import Store

_PLACE = ("nnodes", "node_rank", "rendezvous")  # which machine of how many ran it: each command says that again


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name after `a.b=value` overrides: shipped or a file, else as its latest run recorded it.

    `name@1` is the recipe at seed 1, whatever its own seed. Raises MissingError for an unknown name, RecipeError for an
    invalid recipe.
    """
    tree, own, source = _tree(name)
    return changed(tree, [*own, *overrides], source)


def sweep(name: str, overrides: Sequence[str] = ()) -> list[tuple[Recipe, Point]]:
    """The recipes of a sweep over the overrides with several values; the recipe alone where there is none. The
    overrides of each give it from the same `name`.

    Raises what `load` raises, and RecipeError for values that are empty or repeated.
    """
    tree, own, source = _tree(name)
    recipes = []
    for point in points(tree, [*own, *overrides]):
        recipe = changed(deepcopy(tree), point.overrides, source)
        recipes.append((recipe, replace(point, overrides=point.overrides[len(own) :])))
    return recipes


def _tree(name: str) -> tuple[dict[str, Any], list[str], str]:
    """The plain tree of this name, the override of its seed, and what errors call it."""
    base, seed = _parts(name)
    if given(name):
        return read(base), seed, base
    store = Store()
    runs = recorded(store)
    tree, seed = (runs[name], []) if name in runs else (runs.get(base), seed)
    if tree is None:
        raise MissingError(
            "A recipe must be a YAML file, a shipped name or the name of a run",
            name,
            f"Runs in {store.home}: {', '.join(sorted(runs)) or 'none'}. {nearest(name, [*shipped(), *runs])}",
        )
    if isinstance(tree.get("compute"), dict):
        tree["compute"] = {key: value for key, value in tree["compute"].items() if key not in _PLACE}
    return tree, seed, f"{name}, as its latest run recorded it,"


def check_name(source: str, recipe: Recipe) -> None:
    """Raises RecipeError where the runs of a user's file would not be found by its name: that of a shipped recipe means
    the shipped one."""
    base, file = recipe.name.partition("@")[0], Path(_parts(source)[0]).expanduser()
    if not is_file(source) or base not in shipped() or file.resolve().parent == SHIPPED.resolve():
        return
    ours = COMMAND in os.environ  # a child has in a file what its parent has checked
    if not ours and recipe != load(f"{base}@{recipe.seed}").model_copy(update={"compute": recipe.compute}):
        rule = "A changed recipe must not be run by the name of the shipped one, which later commands of that name mean"
        raise RecipeError(rule, base, "Change `name` in the file, or add --set name=…")


def is_file(name: str) -> bool:
    """Whether it names a recipe file, at any seed."""
    return _parts(name)[0].endswith((".yaml", ".yml"))


def given(name: str) -> bool:
    """Whether it names a shipped recipe or a file, at any seed: these come before runs of that name."""
    return _parts(name)[0] in shipped() or is_file(name)


def exists(name: str) -> bool:
    """Whether there is a recipe of this name for `load`, valid or not."""
    return given(name) or not {name, _parts(name)[0]}.isdisjoint(recorded(Store()))


def names() -> list[str]:
    """All names that `load` takes, apart from files."""
    return sorted({*shipped(), *recorded(Store())})


def _parts(name: str) -> tuple[str, list[str]]:
    """The name without its `@seed`, and the override that sets that seed."""
    base, at, seed = name.rpartition("@")
    return (base, [f"seed={seed}"]) if at and seed.isdecimal() else (name, [])


def recorded(store: Store) -> dict[str, dict[str, Any]]:
    """By name, the whole recipe of the latest run."""
    return {name: facts["recipe"] for name, facts in latest(store.home).items()}
