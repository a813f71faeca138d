"""The faults that Pydantic finds in a recipe, in words: path, rule, value, and the nearest name that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from pipeline.recipe.fields import Section, kinds, names_at, sections_at

_SHOWN = 60  # characters of a value
_FORMS = {  # of text, by field
    "name": "letters, digits, - and _, the first a letter or a digit, at most 64",
    "device": "auto, cpu, cuda or cuda:N",
    "rendezvous": "host:port",
    "checksum": "sha256: and 64 hexadecimal digits",
    "background": "the name of a colour or #rrggbb, in small letters",
}


def nearest(word: str, vocabulary: Iterable[str]) -> str:
    """'Did you mean …?' for an unknown word; the list of known words where none is close."""
    words = sorted(set(vocabulary))
    match = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"Did you mean {match[0]!r}?" if match else "Known: " + ", ".join(words)


def faults(errors: Iterable[Any]) -> list[str]:
    """One line for each error. The keys of another kind that are left in a section are one fault together."""
    lines: list[str] = []
    left: dict[tuple[Any, ...], list[str]] = {}
    for error in errors:
        location = error["loc"]
        if error["type"] == "extra_forbidden" and _kinds_with(location):
            left.setdefault(location[:-1], []).append(location[-1])
        else:
            lines.append(_explain(error))
    return [*lines, *(_of_other_kinds(section, keys) for section, keys in left.items())]


def _explain(error: dict[str, Any]) -> str:
    """One fault as `path must …, got value`."""
    location = error["loc"]
    path = _path(location) or "recipe"
    if error["type"] == "extra_forbidden":
        path = ".".join(filter(None, (_path(location[:-1]), str(location[-1]))))
        return f"{path}: unknown key. {nearest(str(location[-1]), names_at(location[:-1]))}"
    if error["type"] == "union_tag_invalid":
        return f"{path}.kind must be one of {error['ctx']['expected_tags']}, got {error['ctx']['tag']!r}"
    if error["type"] == "union_tag_not_found":
        known = [kind for section in sections_at(location) for kind in kinds(section)]
        return f"{path} must name its kind ({', '.join(known)}): set {path}.kind too"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{path} must be a section, such as {_example(location)}, got {_short(error['input'])}"
    if error["type"] == "too_short":
        least, got = error["ctx"]["min_length"], error["ctx"]["actual_length"]
        return f"{path} must have {least} item{'s' * (least > 1)} or more, got {got}"
    if error["type"] == "string_pattern_mismatch" and location[-1] in _FORMS:
        return f"{path} must be {_FORMS[location[-1]]}, got {_short(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    rule = message.replace("Input should ", "must ", 1)
    separator = " " if rule.startswith("must ") else ": "
    given = "" if isinstance(error["input"], (dict, BaseModel)) else f", got {_short(error['input'])}"
    return f"{path}{separator}{rule[0].lower()}{rule[1:]}{given}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _of_other_kinds(section: tuple[Any, ...], keys: list[str]) -> str:
    """The fault of keys that belong to another kind of a section, and how to replace the section."""
    path, whole = _path(section), f"{{kind: {section[-1]}}}"
    others = dict.fromkeys(kind for key in keys for kind in _kinds_with((*section, key)))
    how = whole if any(isinstance(part, int) for part in section) else f"--set '{path}={whole}'"
    return (
        f"{path}: {', '.join(keys)} belong{'s' * (len(keys) == 1)} to kind {' or '.join(others)}, not to "
        f"{section[-1]}; give the section whole: {how}"
    )


def _kinds_with(location: tuple[Any, ...]) -> list[str]:
    """The other kinds of a section that have this key; the last two parts of `location` are the kind and the key."""
    by_kind = {kind: model for model in sections_at(location[:-2]) for kind in kinds(model)}
    having = [kind for kind, model in by_kind.items() if location[-1] in model.model_fields]
    return having if len(location) > 1 and location[-2] in by_kind else []


def _path(location: tuple[Any, ...]) -> str:
    """The location as a recipe writes it, without the kinds that Pydantic adds."""
    return ".".join(
        str(part) for end, part in enumerate(location) if isinstance(part, int) or part in names_at(location[:end])
    )


def _example(location: tuple[Any, ...]) -> str:
    """The beginning of a section that may stand here."""
    first: Section = sections_at(location)[0]
    if kinds(first):
        return f"{{kind: {kinds(first)[0]}}}"
    names = [name for name, field in first.model_fields.items() if field.is_required()] or list(first.model_fields)
    return "{" + ", ".join(f"{name}: …" for name in names[:2]) + "}"
