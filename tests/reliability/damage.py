"""What disks and people do to files. Each puts a new file in the place of the old one, which may have other links."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    aside.write_bytes(data)
    os.replace(aside, path)


def torn(path: Path) -> None:
    data = path.read_bytes()
    _replace(path, data[: len(data) // 2])


def emptied(path: Path) -> None:
    _replace(path, b"")


def zeroed(path: Path) -> None:
    """Of the right size, but its blocks never reached the disk."""
    data = path.read_bytes()
    _replace(path, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def flipped(path: Path) -> None:
    """One bit, of the same file always the same one."""
    data = bytearray(path.read_bytes())
    draw = random.Random(path.name)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    _replace(path, bytes(data))


def grown(path: Path) -> None:
    _replace(path, path.read_bytes() + b"\xff")


def deleted(path: Path) -> None:
    path.unlink()


RESIZING: tuple[Callable[[Path], None], ...] = (torn, emptied, grown, deleted)
SILENT: tuple[Callable[[Path], None], ...] = (flipped, zeroed)
EVERY = RESIZING + SILENT
