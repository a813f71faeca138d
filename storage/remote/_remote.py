"""A remote: find, send and fetch artifacts below one URL, and look at every byte of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

from storage.artifact import MANIFEST, Artifact, FileRecord, NewerFormat
from storage.checksummed_json import json_digest
from storage.errors import DamageError
from storage.remote import _files
from storage.remote._address import client, parse
from storage.remote._errors import asking
from storage.remote._files import REPAIR
from storage.trees import remove_tree

VARIABLE = "FLOWCTL_REMOTE"
AT_ONCE = 8  # files on their way: a request takes long compared with the bytes of a small file
CONTENT = 16  # hex digits that name an artifact's bytes


def default_remote(url: str | None = None) -> Remote | None:
    """The remote at `url`, or else at `$FLOWCTL_REMOTE`; None if neither is given. Raises InputError."""
    chosen = url or os.environ.get(VARIABLE)
    return Remote(chosen) if chosen else None


class Remote:
    """The artifacts below `url`, s3://bucket/prefix. Endpoint, region and keys are those of the AWS_* variables.

    Transient failures are tried again, with growing waits. All methods raise RemoteError, with its remedy, where the
    remote cannot be used; the constructor raises InputError for a URL that is none.
    """

    def __init__(self, url: str) -> None:
        bucket, prefix = parse(url)
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._store = client(self.url)

    # -- names ---------------------------------------------------------------------------------------------------

    def address(self, artifact: Artifact, *parts: str) -> str:
        """The URL of a file or folder of an artifact: that of a bank is a Zarr v3 group for any reader."""
        return "/".join([self.url, _payload(artifact), *parts])

    # -- reading -------------------------------------------------------------------------------------------------

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The manifest of the artifact of this fingerprint, None if it is not there. It has no `root`.

        Raises DamageError where the manifest does not hold, or a file is not there or not of its size.
        """
        artifact = self.manifest(stage, fingerprint)
        if artifact is not None:
            for path, flaw in self._missing(artifact).items():
                raise DamageError(self.address(artifact, path), flaw, REPAIR)
        return artifact

    def manifest(self, stage: str, fingerprint: str) -> Artifact | None:
        """As `find`, without a look at the files."""
        import obstore

        key = _manifest(stage, fingerprint)
        where = f"{self.url}/{key}"
        try:
            with asking(self.url):
                data = obstore.get(self._store, key).bytes().to_bytes()
        except FileNotFoundError:
            return None
        artifact = Artifact.parse(data, where, REPAIR)
        if (artifact.stage, artifact.fingerprint) != (stage, fingerprint):
            raise DamageError(where, "it names another stage or fingerprint", REPAIR)
        if not artifact.name or Path(artifact.name).name != artifact.name:  # it is to name a directory of ours
            raise DamageError(where, f"its name is {artifact.name!r}", REPAIR)
        return artifact

    def keys(self) -> list[tuple[str, str]]:
        """Stage and fingerprint of everything that is there or on its way there, sorted."""
        import obstore

        keys = []
        with asking(self.url):
            for stage in obstore.list_with_delimiter(self._store, TOP)["common_prefixes"]:
                below = obstore.list_with_delimiter(self._store, stage)["common_prefixes"]
                keys += [(stage.rpartition("/")[2], path.rpartition("/")[2]) for path in below]
        return sorted(keys)

    def flaws(self, artifact: Artifact) -> dict[str, str]:
        """Read every byte. Returns the damage by path; empty if all is as recorded."""
        flaws = self._missing(artifact)

        def look(record: FileRecord) -> None:
            try:
                _files.require(
                    self._store, _key(artifact, record), self.address(artifact, record.path), record, lambda part: None
                )
            except DamageError as damage:
                flaws[record.path] = str(damage.flaw)

        _in_threads(look, [record for record in artifact.files if record.path not in flaws])
        return dict(sorted(flaws.items()))

    def fetch(self, artifact: Artifact, aside: Path, moment: _files.Moment = lambda size: None) -> None:
        """Download the artifact's files into `aside`, each checked by its SHA-256; `publish` turns it into an artifact.

        Files that an earlier, killed call has fetched are reused. `moment` is called with bytes as they come, and
        may raise to stop. Raises DamageError that names the damaged object.
        """
        for path, flaw in self._missing(artifact).items():
            raise DamageError(self.address(artifact, path), flaw, REPAIR)
        files = {aside / record.path for record in artifact.files}
        for file in [*aside.rglob("*")]:
            if file.is_symlink() or (file.is_file() and file not in files):
                remove_tree(file)
        moment = _serialised(moment)
        aside.mkdir(parents=True, exist_ok=True)
        _in_threads(
            lambda record: _files.fetch(
                self._store,
                _key(artifact, record),
                self.address(artifact, record.path),
                aside / record.path,
                record,
                moment,
            ),
            artifact.files,
        )

    # -- writing -------------------------------------------------------------------------------------------------

    def send(self, artifact: Artifact, replace: bool = False, moment: _files.Moment = lambda size: None) -> int | None:
        """Upload a local artifact, its manifest last. Returns the bytes sent, None if the remote had all of them.

        A remote artifact of other bytes is replaced if it is older than this one, or if `replace`; else it is left
        unchanged. A call after a killed one sends the missing files. Concurrent calls do no harm: the last manifest
        counts, and its files are complete. `moment` is called with bytes as they go, and may raise to stop.

        Raises DamageError, before anything can be believed, if a local file is not as recorded.
        """
        import obstore

        there = None
        try:
            there = self.manifest(artifact.stage, artifact.fingerprint)
        except NewerFormat:
            raise
        except DamageError:
            pass  # a torn manifest is replaced
        if there is not None and (there.files == artifact.files or not (replace or _later(artifact, there))):
            return None
        missing = self._missing(artifact)
        ahead = [record for record in artifact.files if record.path in missing]
        moment = _serialised(moment)
        _in_threads(
            lambda record: _files.send(
                self._store,
                _key(artifact, record),
                self.address(artifact, record.path),
                artifact.path(record.path),
                record,
                moment,
            ),
            ahead,
        )
        with asking(self.url):  # not the file of that name: it may be that of another by now, whose files were not sent
            obstore.put(
                self._store,
                _manifest(artifact.stage, artifact.fingerprint),
                json.dumps(artifact.model_dump(mode="json"), indent=2).encode(),
            )
        return sum(record.size for record in ahead)

    def retract(self, stage: str, fingerprint: str, files: Iterable[str] = ()) -> None:
        """Take an artifact out: its manifest, and then these objects of it, given by URL. The rest may be sent to."""
        import obstore

        keys = [_manifest(stage, fingerprint), *(file.removeprefix(self.url + "/") for file in files)]
        for key in keys:
            with asking(self.url), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def _missing(self, artifact: Artifact) -> dict[str, str]:
        """By path, the files that are not there or not of their size."""
        import obstore

        start = _payload(artifact) + "/"
        with asking(self.url):
            there = {
                item["path"].removeprefix(start): item["size"]
                for page in obstore.list(self._store, start)
                for item in page
            }
        return {
            record.path: "is missing"
            if record.path not in there
            else f"{there[record.path]} bytes, recorded {record.size}"
            for record in artifact.files
            if there.get(record.path) != record.size
        }


TOP = "artifacts"


def _manifest(stage: str, fingerprint: str) -> str:
    return f"{TOP}/{stage}/{fingerprint}/{MANIFEST}"


def _later(one: Artifact, other: Artifact) -> bool:
    """Whether one was created after the other.

    An upload may fail or be killed, and a run or a repair may have no remote: only the manifests show that this
    machine has created the artifact since. Two machines therefore never replace each other's forever.
    """
    return one.provenance.created > other.provenance.created  # ISO 8601 in UTC, which sorts by time


def _payload(artifact: Artifact) -> str:
    """Where the files of an artifact lie: a place for these bytes alone."""
    files = sorted([record.path, record.size, record.sha256] for record in artifact.files)
    content = json_digest(files)[:CONTENT]
    return f"{TOP}/{artifact.stage}/{artifact.fingerprint}/{content}"


def _key(artifact: Artifact, record: FileRecord) -> str:
    return f"{_payload(artifact)}/{record.path}"


def _serialised(moment: _files.Moment) -> _files.Moment:
    """The same, for several threads."""
    lock = threading.Lock()

    def count(size: int) -> None:
        with lock:
            moment(size)

    return count


def _in_threads(work: Callable[[FileRecord], None], records: Iterable[FileRecord]) -> None:
    """`work` for each, several at once. The first exception is raised once calls in progress have ended.

    Each has the caller's context variables: a progress callback can find the run that it belongs to.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ahead = [pool.submit(copy_context().run, work, record) for record in records]
        try:
            for done in as_completed(ahead):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
