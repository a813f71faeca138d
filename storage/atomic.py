"""Nothing half-written is ever believed: write aside, fsync, rename, fsync the directory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # as a directory of some shares cannot be synchronised
            raise
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Force every file and directory below `root`, and `root` itself, to the disk."""
    for directory, _, files in os.walk(root):
        for name in files:
            fsync_path(Path(directory, name))
        fsync_path(Path(directory))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it takes the name `path` only if the block succeeds.

    A crash inside the block leaves the old `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        yield aside
        fsync_path(aside)
        os.replace(aside, path)
        fsync_path(path.parent)
    except OSError as error:
        if error.errno is not None and not error.filename:  # as that of a write that fails
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """A new name next to `path`, to write under at first. Leftovers of killed processes are found by it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def folder_aside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A directory next to `path` while a block lasts. It has a name by which leftovers are found, as `aside_of`
    gives; the system's directory for temporary files may be closed to writing."""
    return tempfile.TemporaryDirectory(".partial", f".{path.name}.", path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Publish `data` as `path`, whole or not at all."""
    with replacing(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as readable JSON. NaN and infinity are refused, for other readers cannot read them."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


#: Where there is no file. What else keeps one from being read (a stale handle, a limit, a right that is lacking) may
#: pass, and is no reason to take it for damaged.
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def read_facts(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where it is missing, damaged, or holds something else."""
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Publish `text` in UTF-8."""
    write_bytes(path, text.encode())


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
