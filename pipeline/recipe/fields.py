"""The fields of a recipe, found by their path: which types and which sections may stand at a place."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from pipeline.recipe.recipe import Recipe

Section = type[BaseModel]


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows: unions and `Annotated` are taken apart, tuples are not."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from alternatives(part)
    else:
        yield annotation


def items(annotation: Any) -> list[Any]:
    """The types of a tuple's items; empty for what is not a tuple."""
    return [part for part in get_args(annotation) if part is not ...] if get_origin(annotation) is tuple else []


def is_section(annotation: Any) -> bool:
    """Whether it is the model of a section."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def sections(annotation: Any) -> list[Section]:
    """The sections that an annotation allows, also as items of a tuple."""
    found = []
    for one in alternatives(annotation):
        found += [one] if is_section(one) else [model for item in items(one) for model in sections(item)]
    return found


def kinds(section: Section) -> tuple[str, ...]:
    """The values of a section's field `kind`: one, or none for a section of which there is one kind only."""
    field = section.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def of_kind(candidates: Iterable[Section], kind: object) -> list[Section]:
    """The sections of this kind; all of them if it is unknown or not given."""
    candidates = list(candidates)
    return [section for section in candidates if kind in kinds(section)] or candidates


def types_at(path: Iterable[str], tree: Mapping[str, Any]) -> list[Any]:
    """The types that the field at `path` may have in a recipe. The kinds of sections are those given in `tree`."""
    found: list[Any] = [Recipe]
    branch: Any = tree
    for key in path:
        given = branch.get("kind") if isinstance(branch, Mapping) else None
        models = of_kind((one for one in found if is_section(one)), given)
        found = [one for model in models if key in model.model_fields for one in types_of(model, key)]
        branch = branch.get(key) if isinstance(branch, Mapping) else None
    return found


def types_of(section: Section, key: str) -> Iterator[Any]:
    """The types that a section's field may have."""
    return alternatives(section.model_fields[key].annotation)


def sections_at(location: tuple[Any, ...]) -> list[Section]:
    """The sections that may stand at a location of Pydantic, which also names the kind that a section was taken for."""
    models: list[Section] = [Recipe]
    for part in location:
        below = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        chosen = [model for model in models if part in kinds(model)]
        models = [model for annotation in below for model in sections(annotation)] or chosen or models
    return models


def names_at(location: tuple[Any, ...]) -> set[str]:
    """The names of the fields of the sections that may stand at `location`."""
    return {name for model in sections_at(location) for name in model.model_fields}
