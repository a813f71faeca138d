"""How an artifact was created: versions, git revision, device, threads, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from pipeline.recipe.sections import Compute
from storage.artifact import Provenance

PACKAGES = (
    "flowctl",
    "torch",
    "numpy",
    "scipy",
    "zarr",
    "numcodecs",
    "torchdiffeq",
    "pydantic",
    "prefect",
    "safetensors",
    "scikit-learn",
    "pillow",
    "diffusers",
)

#: Names a variable: the command to record for a process whose words a program made up.
COMMAND = "FLOWCTL_COMMAND"


def provenance(created: datetime, seconds: float, compute: Compute, resumed: int) -> Provenance:
    """The provenance of an artifact that took `seconds` of wall time; `resumed` counts its resumptions."""
    return Provenance(
        created=created.isoformat(timespec="microseconds"),
        wall_seconds=round(seconds, 3),
        command=shlex.split(os.environ.get(COMMAND, "")) or sys.argv,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_versions(),
        git_revision=_revision(),
        device=_device(compute),
        threads=compute.cores,
        resumed=resumed,
    )


def _device(compute: Compute) -> str:
    """The device that was used, also for `auto`. Torch is asked only if the stage has imported it."""
    torch = sys.modules.get("torch")
    if torch is None or compute.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda ({torch.cuda.get_device_name()})"


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _revision() -> str | None:
    """The source tree's git revision, with `-dirty` if it has changes; None outside a checkout. Asked once: later
    commits do not change the code that this process has imported."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
