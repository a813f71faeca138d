"""YAML to a plain tree, each value read by the type of its field.

YAML guesses a type from the spelling: `2024` is a number, `no` is false, `00` is 0, and ` #` begins a comment. A recipe
knows the types. Names, paths and class names are text as written, numbers are numbers, and `null` is null where the
field may be null. Only lists and maps are YAML. In `--set`, text is taken whole, with quotes, `#` and all.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_origin

import yaml

from pipeline.recipe.fields import alternatives, is_section, items, kinds, of_kind, types_of
from pipeline.recipe.recipe import Recipe
from storage.errors import RecipeError

_YAML = "tag:yaml.org,2002:"
_NULL = f"{_YAML}null"
_TAGS = {_YAML + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge", "value")}


def parse_recipe(text: bytes, source: str) -> Any:
    """The plain tree of a recipe file. Raises RecipeError for anything but plain YAML."""
    return _parse(text, [Recipe], source)


def parse_value(text: str, types: Collection[Any], source: str) -> Any:
    """The value of a `--set` override for a field of these types. Raises RecipeError for a list or map that is not
    plain YAML."""
    if _is_text(types) and not any(items(one) or is_section(one) for one in types):
        return None if NoneType in types and text in ("", "null") else text
    return _parse(text, types, source)


def sweep_values(text: str, types: Collection[Any]) -> list[str]:
    """The values in "a,b" for a field of a number, a switch or a choice, which itself never contains a comma.

    For text, lists and maps the text is one value. Of a section only its kinds can be swept.
    """
    parts = [part.strip() for part in text.split(",")]
    models = [one for one in types if is_section(one)]
    names = {name for model in models for name in kinds(model)} | {"null"}
    single = not types or any(one in (str, Path) or items(one) for one in types) or text.lstrip()[:1] in ("[", "{")
    return [text] if single or (models and not names.issuperset(parts)) else parts


class _Loader(yaml.SafeLoader):
    """Plain data only: aliases are refused, since they can grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed in a recipe")
        return super().compose_node(parent, index)


def _parse(text: str | bytes, types: Collection[Any], source: str) -> Any:
    try:
        return _value(yaml.compose(text, _Loader), types)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(f"{source} must be plain YAML", line, "Correct that line.") from None


def _value(node: yaml.Node | None, types: Collection[Any]) -> Any:
    if node is None:  # an empty document
        return None
    if node.tag not in _TAGS:
        raise yaml.YAMLError(f"the tag {node.tag} is not allowed in a recipe")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, types)
    if isinstance(node, yaml.SequenceNode):
        # A field that is no list may still be given one: the values of a sweep, such as guidance: [1, 2].
        inner = [one for kind in types for item in items(kind) for one in alternatives(item)] or types
        return [_value(item, inner) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, types)


def _mapping(node: yaml.MappingNode, types: Collection[Any]) -> dict[str, Any]:
    pairs: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError("a key must be a name")
        if key.value in pairs:
            raise yaml.YAMLError(f"key given twice: {key.value}")
        pairs[key.value] = value
    kind = pairs["kind"].value if isinstance(pairs.get("kind"), yaml.ScalarNode) else None
    models = of_kind(filter(is_section, types), kind)
    return {
        key: _value(value, [one for model in models if key in model.model_fields for one in types_of(model, key)])
        for key, value in pairs.items()
    }


def _scalar(node: yaml.ScalarNode, types: Collection[Any]) -> Any:
    text = node.value
    if "\0" in text:
        raise yaml.YAMLError("a value contains a NUL character")
    if node.tag == _NULL and (NoneType in types or not _is_text(types)):
        return None
    if _is_text(types):
        return text
    for number in (int, float):
        if number in types:
            with suppress(ValueError):
                return number(text)
    if int in types:  # 1e6 images
        with suppress(ValueError):
            return float(text)
    return text


def _is_text(types: Collection[Any]) -> bool:
    return any(one in (str, Path) or get_origin(one) is Literal for one in types)
