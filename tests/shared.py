"""What several test files need and one process makes, and knobs of figures that cost more than what they measure."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HANGS = 900.0  # seconds after which what a test waits for hangs; where others use the CPUs, Prefect starts in minutes


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once for all processes of pytest-xdist. Nothing in it may be changed afterwards."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@contextmanager
def brief_figures(previews: int = 2) -> Iterator[pytest.MonkeyPatch]:
    """Probes and walks of few steps, and few pictures of a training: no weight, bank or score depends on them. In this
    process alone: ranks and commands have the figures whole.

    tests/pipeline/metrics has the figures whole, and test_quality all previews.
    """
    from pipeline.metrics import probe
    from pipeline.stages import evaluation
    from pipeline.training import _fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "_EPOCHS", 10)
        patch.setattr(evaluation, "PATH_STEPS", 8)
        patch.setattr(_fit, "PREVIEW_POINTS", previews)
        yield patch


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """`brief_figures` in each test file that imports this."""
    with brief_figures():
        yield


def without_hard_links(patch: pytest.MonkeyPatch, number: int) -> None:
    """File systems from now on have none, as FAT and some of networks: a link is refused with this error number, after
    the kernel has looked whether its name is taken."""

    def link(source: Path, target: Path, **options: object) -> None:
        taken = os.path.lexists(target)
        raise OSError(errno.EEXIST if taken else number, os.strerror(errno.EEXIST if taken else number), str(target))

    patch.setattr(os, "link", link)
