"""Start the program, or a piece of Python, in an environment that a test describes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.environment.program import ROOT
from tests.flows.conftest import RECIPE
from tests.shared import HANGS

PROGRAM = ROOT / "tests" / "environment" / "program.py"


class Place:
    """A directory with a home, a place for temporary files, a current directory and a store next to each other."""

    def __init__(self, folder: Path, store: str = "store") -> None:
        self.folder, self.store = folder, folder / store
        for name in ("home", "tmp", "cwd"):
            (folder / name).mkdir(parents=True)
        self.recipe = folder / "cwd" / "tiny.yaml"
        self.recipe.write_text(RECIPE)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "FLOWCTL_HOME": str(self.store),
            "OMP_NUM_THREADS": "1",
        }

    def outside(self) -> dict[str, float]:
        """Every file and directory outside the store, with its time of change."""
        found = {}
        for path in self.folder.rglob("*"):
            if path != self.store and not path.is_relative_to(self.store):
                found[str(path)] = path.lstat().st_mtime if path.is_file() else 0.0
        return found

    def python(self, code: str, **environment: str) -> subprocess.CompletedProcess:
        """Run Python code that may import ours."""
        words = [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); import flowctl\n{code}"]
        return self._run(words, environment)

    def flowctl(self, *words: str, closed: Sequence[int] = (), **environment: str) -> subprocess.CompletedProcess:
        """Run the command line with the fake stages, and without some of the standard streams."""
        command = [sys.executable, "-P", str(PROGRAM), *words]
        if closed:
            redirections = " ".join(f"{number}>&-" for number in closed)
            command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]
        return self._run(command, environment)

    def _run(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            words,
            cwd=self.folder / "cwd",
            env={name: value for name, value in (self.environment | environment).items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture
def places(tmp_path: Path) -> Callable[..., Place]:
    """One place after another, for examples of a property."""
    count = 0

    def new(store: str = "store") -> Place:
        nonlocal count
        count += 1
        return Place(tmp_path / str(count), store)

    return new
