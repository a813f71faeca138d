"""The `flowctl` program, in a module whose name no other project uses.

Many repositories have packages named `models`, `pipeline`, `storage` or `flows`. Importing this module makes sure that
those next to it are imported, whatever the current directory, PYTHONPATH and sys.path say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).absolute().parent
PACKAGES = ("models", "storage", "pipeline", "flows")


class OwnPackages(MetaPathFinder):
    """Finds our packages next to this file."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def check_packages() -> None:
    """Exit with one line if a foreign package was imported before this module, for example by a sitecustomize.py."""
    for name in PACKAGES:
        if name not in sys.modules:
            continue
        folders = [Path(folder).absolute() for folder in getattr(sys.modules[name], "__path__", ())]
        if ROOT / name not in folders:
            file = getattr(sys.modules[name], "__file__", None) or folders
            sys.exit(
                f"error: The Python package `{name}` must be flowctl's, {ROOT / name}, got {file}. "
                "Remove it from PYTHONPATH, or from what Python imports when it starts."
            )


def main() -> None:
    """Run the command line."""
    check_packages()
    from flows.cli import main

    main()


sys.meta_path.insert(0, OwnPackages())

if __name__ == "__main__":
    main()
