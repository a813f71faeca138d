"""flowctl in Python, and the `flowctl` program.

    import flowctl

    recipe = flowctl.load("nfm-digits", **{"student.training.lr": 1e-3})
    recipe.run()
    images = recipe.sample(64, nfe=2)

Importing this module is cheap; torch is imported by what needs it. Many repositories have packages named `models`,
`pipeline`, `storage` or `flows`. This module makes sure that those next to it are imported, whatever the current
directory, PYTHONPATH and sys.path say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.api import Recipe, Rows

__all__ = ["load", "main", "runs"]

ROOT = Path(__file__).absolute().parent
PACKAGES = ("models", "storage", "pipeline", "flows")


class OwnPackages(MetaPathFinder):
    """Finds our packages next to this file."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def foreign_package() -> str | None:
    """A sentence about a foreign package that was imported before this module, for example by a sitecustomize.py."""
    for name in PACKAGES:
        if name not in sys.modules:
            continue
        folders = [Path(folder).absolute() for folder in getattr(sys.modules[name], "__path__", ())]
        if ROOT / name not in folders:
            file = getattr(sys.modules[name], "__file__", None) or folders
            return (
                f"The Python package `{name}` must be flowctl's, {ROOT / name}, got {file}. "
                "Remove it from PYTHONPATH, or from what Python imports before flowctl."
            )
    return None


def check_packages() -> None:
    """Exit with one line if a foreign package was imported before this module."""
    if flaw := foreign_package():
        sys.exit(f"error: {flaw}")


def load(recipe: str | os.PathLike[str], /, **changes: Any) -> Recipe:
    """A recipe with its plan, results and networks.

    Args:
        recipe: name of a shipped recipe or of a run, or a YAML file; `name@1` is the recipe at seed 1.
        changes: values of fields, by path: `**{"student.training.lr": 1e-3}`, or `seed=1`. Names and paths are text.

    Raises:
        MissingError: no such recipe.
        RecipeError: an unknown field or an invalid value; the message names it.
        ImportError: another package `models`, `pipeline`, `storage` or `flows` was imported before.
    """
    _require_packages()
    from flows.api import load

    return load(recipe, changes)


def runs(metric: str | None = None) -> Rows:
    """All runs recorded in the store, a dict each: `name`, `seed`, `state`, `changes` (fields that differ from the
    recipe), `metric`, `score` (the best), `model`, `nfe`, `seconds`, `began` (Unix time), `outcome`, `recipe`.

    Args:
        metric: of the score; default: the first metric of each evaluation.

    Raises:
        ImportError: as for `load`.
    """
    _require_packages()
    from flows.api import runs

    return runs(metric)


def main() -> None:
    """Run the command line."""
    check_packages()
    from flows.cli import main

    main()


def _require_packages() -> None:
    if flaw := foreign_package():
        raise ImportError(flaw)


sys.meta_path.insert(0, OwnPackages())

if __name__ == "__main__":
    main()
