"""What a power cut does to a store: what was not forced to the disk is torn, or not there."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path


def cut_power(home: Path, draw: random.Random) -> int:
    """Do to the store what a power cut may do: lose what was not forced to the disk. How many files and names it was.

    A file counts as safe if an fsync has seen it as it is now. A new name counts as safe once its directory was forced
    to the disk after the rename.
    """
    safe, pending, lost = set(), [], 0
    for text in home.with_suffix(".journal").read_text().splitlines():
        kind, *facts = json.loads(text)
        if kind == "rename":
            pending.append(facts)
        else:
            safe.add(tuple(facts))
            pending = [facts_ for facts_ in pending if _inode(Path(facts_[1]).parent) != facts[0]]
    for source, name, fresh in reversed(pending):
        place = Path(source)
        if fresh and draw.random() < 0.5 and Path(name).exists() and place.parent.is_dir() and not place.exists():
            Path(name).rename(place)
            lost += 1
    for path in sorted(home.rglob("*")):
        found = path.stat()
        if path.is_file() and found.st_size and (found.st_ino, found.st_mtime_ns, found.st_size) not in safe:
            _tear(path, found.st_size, draw)
            lost += 1
    return lost


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


def _tear(path: Path, size: int, draw: random.Random) -> None:
    """Nothing of it, a part, or a part followed by zeros, as file systems leave it."""
    kept = draw.choice([0, draw.randrange(size)])
    os.truncate(path, kept)
    if draw.random() < 0.5:
        os.truncate(path, size)
