"""A simulated power cut: files not forced to the disk are torn or missing."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path


def cut_power(home: Path, draw: random.Random) -> int:
    """Lose files and names not forced to the disk, as a power cut may. Returns their number.

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
        status = path.stat()
        if path.is_file() and status.st_size and (status.st_ino, status.st_mtime_ns, status.st_size) not in safe:
            _tear(path, status.st_size, draw)
            lost += 1
    return lost


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


def _tear(path: Path, size: int, draw: random.Random) -> None:
    """Nothing of it, a part, or a part followed by zeros, as file systems leave it."""
    remaining = draw.choice([0, draw.randrange(size)])
    os.truncate(path, remaining)
    if draw.random() < 0.5:
        os.truncate(path, size)
