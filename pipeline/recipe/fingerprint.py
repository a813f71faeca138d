"""Fingerprints: the identity of a result, from what can change it and nothing else.

SHA-256 over (scheme, stage, stage version, meaningful config, input fingerprints), each value with its type, so that
the number 1, the text "1" and the truth value True never collide. Three annotations on a config field state its role
here:

    Annotated[str, NotFingerprinted]        cannot change the result (device, workers, ...): left out
    Annotated[int, AddedLater(3)]          added later; at the value 3 the stage behaves as before: left out there
    Annotated[str | None, Verifies]         compared with what is identified otherwise: stands as None
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.recipe.changes import changes, one_line

SCHEME = 2


class NotFingerprinted:
    """Marks a field that cannot change a stage's result."""


class Verifies:
    """Marks a field that what a stage reads is compared with, by which it changes no result."""


@dataclass(frozen=True)
class AddedLater:
    """Marks a field added to a published config, with the value at which nothing changes."""

    neutral: Any


def fingerprint_fields(config: BaseModel) -> dict[str, Any]:
    """The config's fields that can change the result, as a plain tree."""
    tree: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if any(mark is NotFingerprinted or mark == AddedLater(value) for mark in field.metadata):
            continue
        tree[name] = None if Verifies in field.metadata else _plain(value)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return fingerprint_fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a config may hold numbers, texts, lists and models; {type(value).__name__} is none of these")


def _encode(value: Any) -> Iterator[bytes]:
    """A canonical, prefix-free, type-tagged byte form of a plain tree."""
    if value is None:
        yield b"n;"
    elif isinstance(value, bool):
        yield b"b1;" if value else b"b0;"
    elif isinstance(value, int):
        yield b"i%d;" % value
    elif isinstance(value, float):
        yield f"f{value.hex()};".encode()
    elif isinstance(value, str):
        data = value.encode()
        yield b"s%d:" % len(data) + data
    elif isinstance(value, list):
        yield b"l%d:" % len(value)
        for item in value:
            yield from _encode(item)
    else:
        yield b"d%d:" % len(value)
        for key in sorted(value):
            yield from _encode(key)
            yield from _encode(value[key])


def fingerprint(
    stage: str, version: int, config: BaseModel, inputs: Mapping[str, str], external: str | None = None
) -> str:
    """Hex SHA-256 that names the result of `stage`.

    `inputs` maps each role to the fingerprint of the artifact that plays it; `external` is the content identity of
    the sources outside the store.
    """
    tree = {
        "scheme": SCHEME,
        "stage": stage,
        "version": version,
        "config": fingerprint_fields(config),
        "inputs": dict(inputs),
        "external": external,
    }
    digest = hashlib.sha256()
    for piece in _encode(tree):
        digest.update(piece)
    return digest.hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two plain configs, one `path: old -> new` each."""
    return [f"{change.path}: {one_line(change.a)} -> {one_line(change.b)}" for change in changes(old, new)]
