"""Directories as a whole: moved, between disks too, and removed."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from storage.artifact import MANIFEST
from storage.atomic import aside_of, fsync_path, fsync_tree


def move(source: Path, target: Path) -> None:
    """Rename a directory or file to `target`, or copy it where no rename leads there: to another disk, or of a
    directory that an overlay (as of a container) has from below.

    The copy is made next to `target` and synchronised before it takes that name. Only then is the source removed, a
    manifest in it first, without which it is not taken for an artifact. An error leaves the source as it was.
    """
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    aside = aside_of(target)
    try:
        _copy(source, aside)
        fsync_tree(aside) if aside.is_dir() else fsync_path(aside)
        os.rename(aside, target)
    finally:
        remove_tree(aside)
    fsync_path(target.parent)
    if source.is_dir():
        (source / MANIFEST).unlink(missing_ok=True)
        fsync_path(source)
    remove_tree(source)


def _copy(source: Path, target: Path) -> None:
    """Names and bytes alone: owners and modes of one file system may be refused by another."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir()
        for path in source.iterdir():
            _copy(path, target / path.name)
    else:
        shutil.copyfile(source, target)


def remove_tree(path: Path) -> None:
    """Remove a directory or file as far as that is possible; nothing depends on what stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
