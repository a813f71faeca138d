"""The number of CPUs that this process may use, and what limits it. A container's quota is no part of the affinity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")  # where /proc and /sys are


def usable_cpus(system: Path = SYSTEM) -> tuple[int, str]:
    """How many CPUs there are to use, at least 1, and the limit that decides, in words."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(system)
    return (max(1, int(quota)), "cgroup quota") if quota is not None and quota < affinity else (affinity, "affinity")


def openmp_threads() -> int | None:
    """`OMP_NUM_THREADS`, of which the first number counts; None where it is unset or not a positive number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def cgroup_quota(system: Path = SYSTEM) -> float | None:
    """CPUs that the cgroups of this process grant, the smallest over all its ancestors; None without a limit."""
    quotas = [quota for folder in cgroups(system, "cpu") if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def cgroups(system: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroup of a controller (cpu, memory) and of its ancestors, versions 1 and 2.

    In a container the path in /proc may be the host's, of which only the root of the mount is visible.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # "0::/a/b" or "4:cpu,cpuacct:/a/b"
        if controllers and controller not in controllers.split(","):
            continue
        for name in ("", "unified") if not controllers else (controllers, controller):
            mount = system / "sys/fs/cgroup" / name
            folder = mount / path.lstrip("/")
            yield folder
            yield from (parent for parent in folder.parents if parent.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    """CPUs that one cgroup grants: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
