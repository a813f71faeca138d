"""The artifact store: where finished artifacts, resumable work and locks lie, and how one becomes the other.

<home>/artifacts/<stage>/<readable-name>-<fingerprint prefix>/    published, never changed again
<home>/work/<stage>/<fingerprint prefix>/                         what lets a stage continue after a crash
<home>/work/.discarded-<id>-<name>/                               on its way out: nothing looks into it any more
<home>/artifacts/<stage>/.<name>.<id>.partial/                    the same, or on its way in, from or to another disk
<home>/monitor/<stage>/<readable-name>-<fingerprint prefix>/      a training's curves and samples, for people
<home>/rates/<digest of the key>.json                             measured rates of this device, for plans
<home>/locks/<stage>-<fingerprint prefix>.lock                    held by the one process that makes it
<home>/runs/<id>.json, .jsonl, .lock                              a run's record, its log, and its lock while it runs
<home>/cache/                                                     downloads, and what plans found out; may be deleted
<home>/prefect/                                                   the database and settings of the embedded server
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.artifact import MANIFEST, REBUILD, Artifact
from storage.atomic import aside_of, fsync_path, fsync_tree, write_json
from storage.errors import DamageError, UsageError
from storage.home import check_home, default_home
from storage.locks import take
from storage.text import decodable
from storage.trees import move, remove_tree

Key = tuple[str, str]  # stage and fingerprint prefix: what names an artifact, its work, its lock
PREFIX = 12  # hex digits of a fingerprint in names: 48 bits
DISCARDED = ".discarded-"
RECIPES = ".recipes-"  # of the runs of a sweep, in work/ while it lasts
STORE_FOLDERS = ("artifacts", "work", "locks", "cache")  # that every store has


class Store:
    """Finds, verifies, locks and publishes artifacts below one home directory."""

    def __init__(self, home: Path | None = None) -> None:
        """Raises UsageError where `home` is there and no directory that can be read, or its path is no text, which
        logs cannot hold."""
        self.home = (home or default_home()).absolute()
        if not decodable(str(self.home)):
            remedy = "Set FLOWCTL_HOME to another path, or LC_ALL=C.UTF-8 if the path is right."
            raise UsageError("The path of the store must be text in the encoding of the locale", str(self.home), remedy)
        check_home(self.home)

    def prepare(self) -> None:
        """Create the home. Raises UsageError where it cannot be written to."""
        for name in STORE_FOLDERS:
            self._prepare(self.home / name)

    def prepare_stage(self, stage: str) -> None:
        """Raises UsageError where artifacts of this stage cannot be written to: their folder may be a link or a mount,
        and a stage would learn it when all its work is done."""
        for name in ("artifacts", "work"):
            self._prepare(self.home / name / stage)

    def _prepare(self, folder: Path) -> None:
        """Create a folder of the store, and try to write to it."""
        probe = folder / f".probe-{uuid.uuid4().hex[:8]}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # another remedy
            lost = folder.is_symlink() and not folder.exists()
            raise UsageError(
                "The store must be a writable directory, and so must what links in it lead to",
                f"{folder} ({'a link that leads nowhere' if lost else error.strerror})",
                "Set FLOWCTL_HOME to another directory, or change its permissions or links",
            ) from None

    # -- names ---------------------------------------------------------------------------------------------------

    # Wherever a fingerprint is asked for, its first PREFIX digits will do: they are all that names have.

    def work(self, stage: str, fingerprint: str) -> Path:
        """The work directory of a stage; it may not exist yet."""
        return self.home / "work" / stage / fingerprint[:PREFIX]

    def monitor(self, stage: str, fingerprint: str, name: str = "") -> Path:
        """Where a training leaves curves and samples for people to watch; it may not exist yet, and is then called
        `name`."""
        folder = self.home / "monitor" / stage
        return next(iter(_directories(folder, fingerprint)), folder / f"{name or stage}-{fingerprint[:PREFIX]}")

    def lock_path(self, stage: str, fingerprint: str) -> Path:
        return self.home / "locks" / f"{stage}-{fingerprint[:PREFIX]}.lock"

    def directories(self, stage: str, fingerprint: str) -> list[Path]:
        """The directories of this fingerprint, intact or damaged."""
        return _directories(self.home / "artifacts" / stage, fingerprint)

    # -- reading -------------------------------------------------------------------------------------------------

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The intact artifact of this fingerprint, the first of several, None if there is none.

        Raises DamageError where a directory of it is there, none intact: a manifest or a file's size does not hold.
        """
        damage = None
        for directory in self.directories(stage, fingerprint):
            try:
                artifact = Artifact.read(directory)
                if (artifact.stage, artifact.fingerprint) != (stage, fingerprint):
                    raise DamageError(str(directory / MANIFEST), "it names another stage or fingerprint", REBUILD)
                return artifact
            except DamageError as error:
                damage = damage or error
        if damage is not None:
            raise damage
        return None

    def artifacts(self) -> Iterator[Artifact | DamageError]:
        """Every published artifact, by stage and name; a damaged one comes as the error that says how."""
        for root in self.roots():
            try:
                yield Artifact.read(root)
            except DamageError as error:
                yield error

    def roots(self) -> list[Path]:
        """The directories of all artifacts, intact or damaged, by stage and name."""
        return named_by_key((self.home / "artifacts").glob("*/*/"))

    def works(self) -> list[Path]:
        """The work directories of all stages, by stage and fingerprint."""
        folders = sorted((self.home / "work").glob("*/*/"))
        return [folder for folder in folders if re.fullmatch(rf"[0-9a-f]{{{PREFIX}}}", folder.name)]

    # -- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, stage: str, fingerprint: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the stage's lock. While another process does, `waiting` is called with its name, again and again.

        `waiting` returns when it is worth another try, or raises what ends the wait; nothing here blocks beyond a
        moment, so that a waiting process hears a stop signal. The kernel drops the lock with its holder, on the machine
        that it runs on or on another that shares the disk: a killed process never blocks the next.

        Raises UsageError where the file system has no locks.
        """
        path = self.lock_path(stage, fingerprint)
        while (stream := take(path)) is None:
            waiting(self.holder(path))
        with stream:
            with suppress(OSError):  # on a full disk the holder has no name; the lock is the kernel's
                os.ftruncate(stream.fileno(), 0)
                os.write(stream.fileno(), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            yield

    @staticmethod
    def holder(path: Path) -> str:
        """Who wrote the lock file, in words. Somebody holds it: if not the writer, then a child that outlived it."""
        try:
            facts = json.loads(path.read_text())
            pid, host = int(facts["pid"]), str(facts["host"])
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
        name = f"process {pid} on {host}"
        if host != socket.gethostname():  # a lock goes with its process, unless the whole machine vanishes from a disk
            return f"{name} (should that machine be lost for good, delete {path})"
        return f"a process that was started by {name}, which is gone" if _gone(pid) else name

    # -- removing ------------------------------------------------------------------------------------------------

    def set_aside(self, path: Path) -> Path:
        """Take a directory or file of the store out of use, in one rename; where it is now. `flowctl gc` removes it.

        A crash at any time leaves it either as it was or gone from where it was believed.
        """
        aside = self._rename_aside(path)
        fsync_path(path.parent)
        return aside

    def _rename_aside(self, path: Path) -> Path:
        aside = self.home / "work" / f"{DISCARDED}{uuid.uuid4().hex[:8]}-{path.name}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, aside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            aside = aside_of(path)  # on its own disk: ours need not have room for it
            move(path, aside)
        return aside

    def discard(self, path: Path) -> None:
        """Remove a directory or file of the store: out of use in one rename, and then from the disk."""
        remove_tree(self.set_aside(path))

    def publish(self, artifact: Artifact, payload: Path) -> Artifact:
        """Make `payload` (a directory inside the work directory) the artifact, manifest last, in one rename; where its
        folder is on another disk, after a copy.

        Whatever stood under the same fingerprint is set aside right before, and removed after. One fsync covers both
        renames, which are of one directory: readers find no artifact for a moment, and not for as long as a disk takes.
        """
        write_json(payload / MANIFEST, artifact.model_dump(mode="json"))
        fsync_tree(payload)
        final = self.home / "artifacts" / artifact.stage / f"{artifact.name}-{artifact.fingerprint[:PREFIX]}"
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = [self._rename_aside(old) for old in self.directories(artifact.stage, artifact.fingerprint)]
        move(payload, final)
        fsync_path(final.parent)
        for old in (*aside, self.work(artifact.stage, artifact.fingerprint)):
            remove_tree(old)
        return Artifact.read(final)


def is_store(folder: Path) -> bool:
    """Whether `folder` is the home of an artifact store."""
    return all((folder / name).is_dir() for name in STORE_FOLDERS)


def named_by_key(folders: Iterable[Path]) -> list[Path]:
    """Those that end in a fingerprint, sorted: artifacts, monitors. Other systems leave theirs there, as `._name`."""
    return [
        folder
        for folder in sorted(folders)
        if re.search(rf"-[0-9a-f]{{{PREFIX}}}$", folder.name) and not folder.name.startswith(".")
    ]


def _directories(folder: Path, fingerprint: str) -> list[Path]:
    """Those of this fingerprint in a stage's folder. Other systems leave files there, as `._name`."""
    found = folder.glob(f"*-{fingerprint[:PREFIX]}") if folder.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _gone(pid: int) -> bool:
    """Whether a process of this machine has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    return False
