"""The memory that this process may use: the machine's, or less where a container's limit says so."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.recipe.sections._cpus import SYSTEM, cgroups


def usable_memory(system: Path = SYSTEM) -> int:
    """Bytes of memory: physical, or the smallest limit of this process's cgroups."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for folder in cgroups(system, "memory") if (limit := _limit(folder)) is not None]
    return min([physical, *limits])


def _limit(folder: Path) -> int | None:
    """Bytes that one cgroup grants: `memory.max` of version 2, `memory.limit_in_bytes` of version 1."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None
