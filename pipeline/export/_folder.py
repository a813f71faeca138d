"""The export's directory: published whole or not at all; it replaces only an earlier export."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.load import NETWORK, SAMPLER, WEIGHTS
from pipeline.export._onnx import ONNX
from pipeline.outputs.images import AUTOENCODER
from storage.atomic import fsync_path, fsync_tree
from storage.errors import UsageError
from storage.trees import move

CARD, PICTURE = "README.md", "samples.png"
OURS = {WEIGHTS, NETWORK, SAMPLER, CARD, PICTURE, ONNX, f"{ONNX}.data", AUTOENCODER}


def check_place(out: Path, force: bool) -> None:
    """Raise UsageError unless `out` is new or empty or, with `force`, holds an earlier export and nothing else. It is
    replaced as a whole, so it must not be where the user stands."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UsageError("--out must be another directory than the current one", str(out), "Name one below it.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError("--out must be a directory", str(out), "Choose another.")
    there = {file.name for file in out.iterdir()} if out.is_dir() else set()
    if not there:
        return
    if not force:
        raise UsageError("--out must be new or empty", str(out), "Choose another, or replace an export with --force.")
    if not {SAMPLER, WEIGHTS} <= there or there - OURS:
        raise UsageError(
            "--force replaces only an earlier export; the directory must hold nothing else",
            f"{out} with {', '.join(sorted(there - OURS)[:3]) or 'no model'}",
            "Choose another.",
        )


@contextmanager
def published(out: Path, force: bool) -> Iterator[Path]:
    """A directory next to `out` to write to: renamed to `out` if the block succeeds, else removed. An interruption
    leaves at `out` the new export or the earlier one; a kill between the two renames leaves both next to it, under
    names that begin with a dot.

    Raises UsageError, as `check_place` does, for what has come to be at `out` while the block ran.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    aside, old = (out.with_name(f".{out.name}.{mark}.{what}") for what in ("partial", "old"))
    aside.mkdir()
    try:
        yield aside
        fsync_tree(aside)
        check_place(out, force)
        if out.exists():
            move(out, old)
        os.rename(aside, out)
        fsync_path(out.parent)
    finally:
        if old.exists() and not out.exists():
            os.rename(old, out)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
