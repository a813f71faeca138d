"""Pictures of artifacts as data URIs, and the histories of trainings."""

from __future__ import annotations

import base64
import json
import re
import struct
from dataclasses import dataclass

from pipeline.reporting.text.numbers import count
from storage.artifact import Artifact
from storage.errors import DamageError
from storage.required import required

_PREVIEW = re.compile(r"previews/images-(\d+)\.png")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page, with its size in pixels, so that nothing moves while it loads."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


def picture(artifact: Artifact | None, name: str, alt: str, caption: str) -> Picture | None:
    """The artifact's picture of this name; None without one."""
    if artifact is None or not any(record.path == name for record in artifact.files):
        return None
    data = artifact.path(name).read_bytes()
    if data[:8] != _PNG or data[12:16] != b"IHDR":
        raise DamageError(str(artifact.path(name)), "not a PNG picture", _remedy(artifact))
    width, height = struct.unpack(">II", data[16:24])
    return Picture("data:image/png;base64," + base64.b64encode(data).decode(), width, height, alt, caption)


def previews(artifact: Artifact) -> list[Picture]:
    """Samples at points of the training, in their order; the caption is the number of images seen."""
    shown = []
    for name in sorted(record.path for record in artifact.files):
        if match := _PREVIEW.fullmatch(name):
            seen = count(int(match[1]))
            shown.append(required(picture(artifact, name, f"Samples after {seen} images.", seen), name))
    return shown


def history(artifact: Artifact) -> list[dict[str, float]]:
    """The lines of a training's history; empty without a history."""
    if not any(record.path == "history.jsonl" for record in artifact.files):
        return []
    path = artifact.path("history.jsonl")
    try:
        lines = path.read_text().splitlines()
        return [{key: float(value) for key, value in json.loads(line).items()} for line in lines if line]
    except (ValueError, TypeError, AttributeError):
        raise DamageError(str(path), "not lines of numbers in JSON", _remedy(artifact)) from None


def _remedy(artifact: Artifact) -> str:
    return f"Rerun the stage: --force {artifact.stage}."
