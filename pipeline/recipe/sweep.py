"""Sweeps: `--set student.training.lr=1e-3,2e-3` stands for one recipe for each value, several for their product.

Numbers, switches, choices and kinds of sections can be swept. Text and lists are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pipeline.recipe.fields import types_at
from pipeline.recipe.load import override, split
from pipeline.recipe.parse import sweep_values
from storage.errors import RecipeError

_NAME = re.compile(r"(?P<stem>[^\[@]*)(?:\[(?P<settings>[^\]]*)\])?(?P<seed>@.*)?", re.DOTALL)


@dataclass(frozen=True)
class Point:
    """One recipe of a sweep: `overrides` have one value for each field, the name included. `settings` are the values
    that it does not share with all others, by short field names."""

    overrides: tuple[str, ...]
    settings: Mapping[str, str]


def points(tree: Mapping[str, Any], overrides: Sequence[str]) -> list[Point]:
    """The product of all values in `overrides`, the last field varying fastest; one point where there is no sweep.

    The recipes are named apart: `a[student.lr=0.001]`; seeds as everywhere, `a@1`. Raises RecipeError for an empty or
    repeated value.
    """
    branches: list[tuple[dict[str, Any], list[str], dict[str, str]]] = [(deepcopy(dict(tree)), [], {})]
    for text in overrides:
        branches = [
            (changed, [*chosen, one], {**swept, **({path: _text(changed, path)} if several else {})})
            for branch, chosen, swept in branches
            for several, path, one in _alternatives(branch, text)
            for changed in [_changed(branch, one)]
        ]
    if len(branches) == 1:
        return [Point(tuple(overrides), {})]
    short = _short_names({path for _, _, swept in branches for path in swept})
    return [
        Point(tuple(_named(branch, chosen, settings)), settings)
        for branch, chosen, swept in branches
        for settings in [{short[path]: value for path, value in swept.items()}]
    ]


def stem(name: str) -> str:
    """The name without the settings of a sweep and without the seed: that of the recipe that was changed."""
    return _NAME.match(name)["stem"]


def label_of(name: str, stages: Collection[str]) -> str:
    """The name with only those settings of a sweep that belong to one of these stages."""
    parts = _NAME.match(name)
    own = [part for part in (parts["settings"] or "").split(",") if part.split(".")[0] in stages]
    return parts["stem"] + (f"[{','.join(own)}]" if own else "") + (parts["seed"] or "")


def _alternatives(tree: dict[str, Any], text: str) -> list[tuple[bool, str, str]]:
    """(whether it is one of several, path, override with one value) for each value of one override."""
    keys, value = split(text)
    path, values = ".".join(keys), sweep_values(value, types_at(keys, tree))
    if len(values) > 1 and not all(values):
        raise RecipeError(f"A sweep of {path} must have a value between commas", value, "Example: --set seed=0,1")
    if len(values) == 1:
        return [(False, path, text)]
    texts = [_text(_changed(tree, f"{path}={one}"), path) for one in values]
    if len(set(texts)) < len(texts):
        raise RecipeError(f"The values of a sweep of {path} must differ", value, "List each once.")
    return [(True, path, f"{path}={one}") for one in values]


def _changed(tree: dict[str, Any], text: str) -> dict[str, Any]:
    tree = deepcopy(tree)
    override(tree, text)
    return tree


def _text(tree: Mapping[str, Any], path: str) -> str:
    """The value of a field as it stands in a name: 0.001, whether written so or as 1e-3."""
    value: Any = tree
    for key in path.split("."):
        value = value[key]
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def _short_names(paths: set[str]) -> dict[str, str]:
    """Section and field, such as student.lr for student.training.lr; the whole path where two would be the same."""
    keys = {path: path.removesuffix(".kind").split(".") for path in paths}
    short = {path: ".".join(dict.fromkeys((names[0], names[-1]))) for path, names in keys.items()}
    return {path: path if list(short.values()).count(name) > 1 else name for path, name in short.items()}


def _named(tree: Mapping[str, Any], overrides: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    """The overrides with one more, of the name; none where only the seed differs, which names itself."""
    parts = _NAME.match(str(tree.get("name", "")))
    earlier = dict(part.split("=", 1) for part in (parts["settings"] or "").split(",") if "=" in part)
    both = {**earlier, **{name: value for name, value in settings.items() if name != "seed"}}
    if both == earlier:
        return list(overrides)
    listed = ",".join(f"{name}={value}" for name, value in both.items())
    return [*overrides, f"name={parts['stem']}[{listed}]{parts['seed'] or ''}"]
