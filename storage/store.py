"""The artifact store: where finished artifacts, resumable work and locks lie, and how one becomes the other.

<home>/artifacts/<stage>/<readable-name>-<fingerprint prefix>/    published, never changed again
<home>/work/<stage>/<fingerprint prefix>/                         what lets a stage continue after a crash
<home>/monitor/<stage>-<fingerprint prefix>/                      a training's curves and samples, for people
<home>/locks/<stage>-<fingerprint prefix>.lock                    held by the one process that makes it
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.artifact import MANIFEST, Artifact
from storage.atomic import fsync_path, fsync_tree, write_json
from storage.errors import DamageError, InputError

PREFIX = 12  # hex digits of a fingerprint in names: 48 bits


def default_home() -> Path:
    """`$FLOWCTL_HOME`, or `.flowctl` in the current directory."""
    return Path(os.environ.get("FLOWCTL_HOME") or ".flowctl").expanduser().absolute()


class Store:
    """Finds, verifies, locks and publishes artifacts below one home directory."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()

    def prepare(self) -> None:
        """Create the home. Raises InputError where it cannot be written to."""
        try:
            for folder in ("artifacts", "work", "locks", "cache"):
                (self.home / folder).mkdir(parents=True, exist_ok=True)
            probe = self.home / "work" / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(
                "The store must be a directory that can be written to",
                f"{self.home} ({error.strerror})",
                "Set FLOWCTL_HOME to another place, or free it",
            ) from None

    # -- names ---------------------------------------------------------------------------------------------------

    def _prefix(self, fingerprint: str) -> str:
        return fingerprint[:PREFIX]

    def work(self, stage: str, fingerprint: str) -> Path:
        """The work directory of a stage; it may not exist yet."""
        return self.home / "work" / stage / self._prefix(fingerprint)

    def monitor(self, stage: str, fingerprint: str) -> Path:
        """Where a training leaves curves and samples for people to watch; it may not exist yet."""
        return self.home / "monitor" / f"{stage}-{self._prefix(fingerprint)}"

    def lock_path(self, stage: str, fingerprint: str) -> Path:
        return self.home / "locks" / f"{stage}-{self._prefix(fingerprint)}.lock"

    def _directories(self, stage: str, fingerprint: str) -> list[Path]:
        folder = self.home / "artifacts" / stage
        return sorted(folder.glob(f"*-{self._prefix(fingerprint)}")) if folder.is_dir() else []

    # -- reading -------------------------------------------------------------------------------------------------

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The sound artifact of this fingerprint, None if there is none.

        Raises DamageError where its directory is there and its manifest or a file's size does not hold.
        """
        for directory in self._directories(stage, fingerprint):
            artifact = Artifact.read(directory)
            if (artifact.stage, artifact.fingerprint) != (stage, fingerprint):
                raise DamageError(
                    str(directory / MANIFEST),
                    "it names another stage or fingerprint",
                    "Run the same command again: it is made anew from its inputs",
                )
            return artifact
        return None

    def artifacts(self) -> Iterator[Artifact | DamageError]:
        """Every published artifact, by stage and name; a damaged one comes as the error that says how."""
        for manifest in sorted((self.home / "artifacts").glob("*/*/")):
            if not re.search(rf"-[0-9a-f]{{{PREFIX}}}$", manifest.name):
                continue
            try:
                yield Artifact.read(manifest)
            except DamageError as error:
                yield error

    # -- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, stage: str, fingerprint: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the stage's lock; `waiting` is told who holds it if that is another process.

        The kernel drops the lock with its holder, so that a killed process never blocks the next.
        """
        path = self.lock_path(stage, fingerprint)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(self.holder(path))
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            stream.truncate()
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
            stream.flush()
            yield

    @staticmethod
    def holder(path: Path) -> str:
        """Who wrote the lock file, in words."""
        try:
            facts = json.loads(path.read_text())
            return f"process {facts['pid']} on {facts['host']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def publish(self, artifact: Artifact, payload: Path) -> Artifact:
        """Make `payload` (a directory inside the work directory) the artifact, manifest last, in one rename.

        Whatever stood under the same fingerprint, a damaged one, is put aside and removed after.
        """
        write_json(payload / MANIFEST, artifact.model_dump(mode="json"))
        fsync_tree(payload)
        final = self.home / "artifacts" / artifact.stage / f"{artifact.name}-{self._prefix(artifact.fingerprint)}"
        final.parent.mkdir(parents=True, exist_ok=True)
        discarded = self.home / "work" / f".discarded-{os.getpid()}-{final.name}"
        for old in self._directories(artifact.stage, artifact.fingerprint):
            shutil.rmtree(discarded, ignore_errors=True)
            os.rename(old, discarded)
        os.rename(payload, final)
        fsync_path(final.parent)
        shutil.rmtree(discarded, ignore_errors=True)
        shutil.rmtree(self.work(artifact.stage, artifact.fingerprint), ignore_errors=True)
        return Artifact.read(final)
