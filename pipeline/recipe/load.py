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

from pipeline.recipe.recipe import Recipe
from storage.errors import InputError, RecipeError

SHIPPED = Path(__file__).parents[1] / "recipes"
DEEPEST = 4  # recipes that extend one another
LARGEST = 256 * 1024  # bytes; a recipe is a page, anything larger is not one
LONGEST = 64  # bits of a whole number


class Unsound(RecipeError):
    """A recipe with faults. Each of these tells its own value, so that there is none to tell of the whole."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(
            f"Recipe {source} is not valid: {'; '.join(faults)}",
            faults,
            "Correct the fields named; `flowctl show RECIPE` prints a whole valid recipe",
        )
        self.args = (f"{self.rule}{'' if self.rule.endswith('?') else '.'} {self.remedy}",)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name or YAML file, after `a.b=value` overrides. Raises InputError for anything unsound.

    A recipe that `extends` another, by name or file, has all of its fields but those it gives itself; a section given
    as null is left out.
    """
    return changed(_extended(_read(_locate(recipe), recipe), (recipe,)), overrides, recipe)


def changed(tree: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """The recipe of a plain tree, which is changed in place by `a.b=value` overrides. Raises InputError.

    An override with another seed than the tree's also changes the name: `a` at seed 1 is `a@1`.
    """
    own = tree.get("seed", 0)
    for override in overrides:
        _override(tree, override)
    if tree.get("seed", 0) != own and isinstance(tree.get("name"), str):
        tree["name"] = f"{tree['name'].partition('@')[0]}@{tree['seed']}"
    return validate(tree, source)


def validate(tree: Any, source: str) -> Recipe:
    """A Recipe from a plain tree; all faults in one message, unknown keys with the nearest known one."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise Unsound(source, _faults(error.errors(include_url=False))) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """'Did you mean …?' for a word that is not known; else the list of what is."""
    known = sorted(set(known))
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
        raise InputError(
            f"`extends` names one other recipe, at most {DEEPEST} deep, never in a circle",
            base,
            nearest(str(base), shipped()),
        )
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
        raise InputError(
            "An override is --set section.field=value", override, "Example: --set student.training.lr=1e-4"
        )
    value = _parse(text, f"The value of --set {path}")
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with suppress(ValueError):
            value = float(value)
    branch: Any = tree
    for key in keys[:-1]:
        if branch.get(key) is None:  # a section that is left out
            branch[key] = {}
        branch = branch[key]
        if not isinstance(branch, dict):
            raise InputError("An override names a field inside a section", override, f"{key!r} is not a section here")
    branch[keys[-1]] = value


def _faults(items: Iterable[Any]) -> list[str]:
    """All faults in words. What is left in a section whose kind was changed is one fault, however many keys it has."""
    lines, left = [], {}
    for item in items:
        if item["type"] == "extra_forbidden" and _kinds_with(item["loc"]):
            left.setdefault(item["loc"][:-1], []).append(item["loc"][-1])
        else:
            lines.append(_explain(item))
    return [*lines, *(_of_other_kinds(section, keys) for section, keys in left.items())]


def _explain(item: dict[str, Any]) -> str:
    """One fault as `path: rule (got value)`."""
    location = item["loc"]
    path = _path(location) or "recipe"
    if item["type"] == "extra_forbidden":
        path = ".".join(filter(None, (_path(location[:-1]), str(location[-1]))))
        return f"{path}: unknown key. {nearest(str(location[-1]), _known(location[:-1]))}"
    if item["type"] == "union_tag_invalid":
        return f"{path}: the kind should be one of {item['ctx']['expected_tags']} (got {item['ctx']['tag']!r})"
    if item["type"] in ("model_type", "model_attributes_type"):
        return f"{path}: should be a section, such as {_example(location)} (got {item['input']!r})"
    given = "" if isinstance(item["input"], (dict, BaseModel)) else f" (got {item['input']!r})"
    message = item["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}{given}"


def _of_other_kinds(section: tuple[Any, ...], keys: list[str]) -> str:
    """Such a fault: the keys that no longer belong in a section, and how to be rid of them."""
    path, whole = _path(section), f"{{kind: {section[-1]}}}"
    kinds = dict.fromkeys(kind for key in keys for kind in _kinds_with((*section, key)))
    how = whole if any(isinstance(part, int) for part in section) else f"--set '{path}={whole}'"
    return (
        f"{path}: {', '.join(keys)} belong{'s' * (len(keys) == 1)} to kind {' or '.join(kinds)}, not to "
        f"{section[-1]}; give the section whole: {how}"
    )


def _kinds_with(location: tuple[Any, ...]) -> list[str]:
    """Where the last part is a key and the one before it the kind of its section: the other kinds that have the key."""
    kinds = {kind: model for model in _at(location[:-2]) for kind in _kind(model)}
    known = [kind for kind, model in kinds.items() if location[-1] in model.model_fields]
    return known if len(location) > 1 and location[-2] in kinds else []


def _path(location: tuple[Any, ...]) -> str:
    """The location as one writes it in a recipe: pydantic also names the kind that a section was taken for."""
    return ".".join(
        str(part) for end, part in enumerate(location) if isinstance(part, int) or part in _known(location[:end])
    )


def _example(location: tuple[Any, ...]) -> str:
    """The beginning of a section that may stand here."""
    first = _at(location)[0]
    if _kind(first):
        return f"{{kind: {_kind(first)[0]}}}"
    fields = first.model_fields
    names = [name for name, field in fields.items() if field.is_required()] or list(fields)
    return "{" + ", ".join(f"{name}: …" for name in names[:2]) + "}"


def _known(location: tuple[Any, ...]) -> set[str]:
    """Names of the fields of what stands at `location` in a recipe."""
    return {name for model in _at(location) for name in model.model_fields}


def _at(location: tuple[Any, ...]) -> list[type[BaseModel]]:
    """The models that may stand at `location`: of a section of several kinds all, unless its kind is named too."""
    models: list[type[BaseModel]] = [Recipe]
    for part in location:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        chosen = [model for model in models if part in _kind(model)]
        models = [model for kind in fields for model in _models(kind)] or chosen or models
    return models


def _kind(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]
