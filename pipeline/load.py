"""From a recipe's name or file and `--set` overrides to a validated Recipe, with errors that a user can act on."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.recipe import Recipe
from storage.errors import InputError

SHIPPED = Path(__file__).parent / "recipes"
DEEPEST = 4  # recipes that extend one another
LARGEST = 256 * 1024  # bytes; a recipe is a page, anything larger is not one
LONGEST = 64  # bits of a whole number


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name or YAML file, after `a.b=value` overrides. Raises InputError for anything unsound.

    A recipe that `extends` another, by name or file, has all of its fields but those it gives itself; a section given
    as null is left out.
    """
    tree = _extended(_read(_locate(recipe), recipe), (recipe,))
    for override in overrides:
        _override(tree, override)
    return validate(tree, recipe)


def validate(tree: Any, source: str) -> Recipe:
    """A Recipe from a plain tree; all faults in one message, unknown keys with the nearest known one."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise InputError(f"Recipe {source} is not valid: " + "; ".join(lines), f"{len(lines)} fault(s)",
                         "Correct the fields named; `flowctl show RECIPE` prints a whole valid recipe") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """'Did you mean …?' for a word that is not known; else the list of what is."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {match[0]!r}?" if match else "Known: " + ", ".join(known)


def _locate(recipe: str) -> Path:
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
        if not path.is_file():
            raise InputError("A recipe file must exist", recipe, "Check the path")
        return path
    if recipe in shipped():
        return SHIPPED / f"{recipe}.yaml"
    raise InputError("A recipe is a YAML file or a shipped name", recipe, nearest(recipe, shipped()))


class _Loader(yaml.SafeLoader):
    """Plain data only: no aliases (they can grow without bound), no key twice (one would silently win)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
        twice = {str(key) for key, count in keys.items() if count > 1}
        if twice:
            raise yaml.YAMLError(f"key given twice: {', '.join(sorted(twice))}")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if value.bit_length() > LONGEST:
            raise yaml.YAMLError(f"a whole number of more than {LONGEST} bits")  # Python may not even print it
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _parse(text: str | bytes, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: plain data only
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source} must be plain YAML", line, "Correct the line named") from None


def _read(path: Path, source: str) -> dict[str, Any]:
    data = path.read_bytes()
    if len(data) > LARGEST:
        raise InputError(f"A recipe is at most {LARGEST} bytes", f"{len(data)} bytes in {path}", "Is it a recipe?")
    tree = _parse(data, f"Recipe {source}")
    if not isinstance(tree, dict):
        raise InputError("A recipe is a mapping of sections", type(tree).__name__, "See `flowctl show nfm-digits`")
    return tree


def _extended(tree: dict[str, Any], chain: tuple[str, ...]) -> dict[str, Any]:
    """The tree over the one that it extends, and so on."""
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str) or base in chain or len(chain) > DEEPEST:
        raise InputError(f"`extends` names one other recipe, at most {DEEPEST} deep, never in a circle", base,
                         nearest(str(base), shipped()))
    return _merged(_extended(_read(_locate(base), base), (*chain, base)), tree)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError("An override is --set section.field=value", override,
                         "Example: --set student.training.lr=1e-4")
    value = _parse(text, f"The value of --set {path}")
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with suppress(ValueError):
            value = float(value)
    branch: Any = tree
    for key in keys[:-1]:
        branch = branch.setdefault(key, {}) if isinstance(branch, dict) else None
        if not isinstance(branch, dict):
            raise InputError("An override names a field inside a section", override, f"{key!r} is not a section here")
    branch[keys[-1]] = value


def _explain(item: dict[str, Any]) -> str:
    """One fault as `path: rule (got value)`."""
    path = ".".join(_path(item["loc"])) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key. {nearest(str(item['loc'][-1]), _known(item['loc'][:-1]))}"
    given = "" if isinstance(item["input"], (dict, BaseModel)) else f" (got {item['input']!r})"
    message = item["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}{given}"


def _path(location: tuple[Any, ...]) -> list[str]:
    """The location as one writes it in a recipe: pydantic also names the kind that a section was taken for."""
    *parents, last = location or ("",)
    written = [str(part) for end, part in enumerate(parents, 1)
               if isinstance(part, int) or part in _known(location[:end - 1])]
    return [*written, str(last)] if location else []


def _known(location: tuple[Any, ...]) -> set[str]:
    """Names of the fields of the model that stands at `location` in a recipe."""
    models: list[Any] = [Recipe]
    for part in location:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = [model for kind in fields for model in _models(kind)] or models
    return {name for model in models for name in model.model_fields}


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]
