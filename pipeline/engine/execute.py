"""Make one artifact: lock, look once more, fetch it, or run or take up the stage, publish."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.engine import rerun
from pipeline.engine.dag import Node, external_digest
from pipeline.engine.elastic import await_orphans, run_in_ranks
from pipeline.engine.plan import sound
from pipeline.engine.provenance import provenance
from pipeline.engine.remote import fetched
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import Job, Listener, Progress, StopSignal, read_saved
from storage.artifact import Artifact, NewerFormat, record_files
from storage.atomic import write_json
from storage.errors import DamageError, FlowctlError, StageFailed
from storage.remote import Remote, RemoteError
from storage.store import Store, remove_tree

log = logging.getLogger(__name__)
ATTEMPTS = "attempts.json"


@dataclass(frozen=True)
class Outcome:
    """How a stage came to its artifact."""

    action: Literal["reused", "fetched", "resumed", "run"]
    artifact: Artifact
    seconds: float


def execute(
    node: Node,
    inputs: Mapping[str, Artifact],
    store: Store,
    compute: Compute,
    *,
    listeners: tuple[Listener, ...] = (),
    stop: StopSignal | None = None,
    waiting=lambda holder: None,
    remote: Remote | None = None,
    offered: bool = False,
) -> Outcome:
    """The node's artifact: the sound one if there is one, here or on `remote`; else made, going on from the work
    directory. One that was asked for anew (`pipeline.engine.rerun`) is always made.

    `offered` says that the plan has found it on `remote`: where it then cannot be had from there, that is an error.
    Raises FlowctlError for everything expected; what the stage had saved stays for the next call.
    """
    started, stop = time.monotonic(), StopSignal() if stop is None else stop
    work = store.work(node.name, node.fingerprint)
    try:
        with store.lock(node.name, node.fingerprint, waiting):
            await_orphans(work, stop)
            anew = rerun.is_requested(node, store)
            found = None if anew else _reusable(node, store)
            if found is not None or work.is_symlink():
                remove_tree(work)  # that of an artifact which is there was left by a process killed after publishing it
            if found is not None:
                return Outcome("reused", found, time.monotonic() - started)
            found = None if anew or remote is None else _fetched(node, store, remote, offered, listeners, stop)
            if found is not None:
                return Outcome("fetched", found, time.monotonic() - started)
            rerun.start(work)
            resumed = read_saved(work) is not None
            work.mkdir(parents=True, exist_ok=True)
            _clear(work)
            attempts = _count_attempt(work)
            for artifact in inputs.values():
                artifact.check_files()
            job = Job(
                node.name,
                node.config,
                inputs,
                work,
                compute,
                Progress(node.name, work, listeners),
                stop,
                store.monitor(node.name, node.fingerprint),
            )
            shared = node.stage.parallel and compute.world > 1
            result = run_in_ranks(job) if shared else node.stage.module().run(job)
            _require_unchanged(node, store)
            seconds = time.monotonic() - started
            artifact = Artifact(
                stage=node.name,
                stage_version=node.stage.version,
                name=node.label,
                fingerprint=node.fingerprint,
                config=fingerprint_fields(node.config),
                inputs={role: n.fingerprint for role, n in node.inputs.items()},
                metrics=node.stage.result.model_validate(result).model_dump(mode="json"),
                files=record_files(job.out),
                provenance=provenance(datetime.now(UTC), seconds, compute, resumed=attempts - 1),
            )
            published = store.publish(artifact, job.out)
            return Outcome("resumed" if resumed else "run", published, time.monotonic() - started)
    except (OSError, MemoryError, RuntimeError) as error:
        told = _disk_error(error, node, store) if isinstance(error, OSError) else _memory_error(error, node)
        if told is None:
            raise
        raise told from error


def _reusable(node: Node, store: Store) -> Artifact | None:
    try:
        return sound(node, store)
    except NewerFormat:
        raise
    except DamageError as damage:
        log.warning("%s: %s: %s; it is replaced by a new one", node.name, damage.what, damage.found)
        return None


def _fetched(
    node: Node, store: Store, remote: Remote, offered: bool, listeners: tuple[Listener, ...], stop: StopSignal
) -> Artifact | None:
    """What `remote` has of it. Where it was not known to have any, that it cannot be asked now is no reason to stop."""
    try:
        return fetched(node, store, remote, listeners, stop)
    except RemoteError as error:
        if offered:
            raise
        log.warning("%s: %s; it is made here", node.name, error)
        return None


def _require_unchanged(node: Node, store: Store) -> None:
    """The fingerprint names files outside the store by their content as it was when the run was planned."""
    if node.external != external_digest(node.stage, node.config, store.home / "cache"):
        raise StageFailed(
            f"Stage {node.name}: the files that it reads from outside the store were changed after the "
            "run was planned. Run the same command again: it is made of what they are now"
        )


def _count_attempt(work: Path) -> int:
    """How many times this work directory has been taken up, this one included."""
    try:
        attempts = int(json.loads((work / ATTEMPTS).read_bytes())["attempts"]) + 1
    except (OSError, ValueError, KeyError, TypeError):
        attempts = 1
    write_json(work / ATTEMPTS, {"attempts": attempts})
    return attempts


def _clear(work: Path) -> None:
    """Remove what killed processes were writing, else it would be part of the artifact; and links, none of ours."""
    for leftover in list(work.rglob("*")):
        if leftover.is_symlink() or leftover.name.endswith(".partial"):
            remove_tree(leftover)


def _disk_error(error: OSError, node: Node, store: Store) -> StageFailed | None:
    """The full, read-only or vanished disk in words; None for anything else."""
    remedies = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EROFS: "make the store writable",
        errno.EACCES: "make the store writable",
    }
    ours = str(error.filename or store.home).startswith(str(store.home))
    if error.errno in remedies and (ours or error.errno != errno.EACCES):  # else the user's images may not be read
        return StageFailed(
            f"Stage {node.name} could not write {error.filename or 'its files'}: {error.strerror}. "
            f"What was saved before is kept: {remedies[error.errno]} and run the same command again"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and ours:
        return StageFailed(
            f"Stage {node.name}: {error.filename or store.home} has vanished while it was in use. Does "
            f"anything remove files from {store.home}, or has its disk gone? Once it is back, run the "
            "same command again"
        )
    return None


def _memory_error(error: MemoryError | RuntimeError, node: Node) -> StageFailed | None:
    """Memory that ran out, of the machine or of a GPU, in words; None for anything else."""
    text = str(error)
    out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not out and "can't allocate memory" not in text and "not enough memory" not in text:  # torch's own, on a CPU
        return None
    training = f", or raise {node.name}.training.accumulate" if hasattr(node.config, "training") else ""
    return StageFailed(
        f"Stage {node.name} ran out of memory ({text.partition(chr(10))[0] or type(error).__name__}). "
        f"What was saved before is kept: lower compute.inference_batch{training}, and run the same command again"
    )


def failure(stage: str, error: BaseException) -> FlowctlError:
    """A stage's exception as an error that a user can read."""
    if isinstance(error, FlowctlError):
        return error
    failed = StageFailed(
        f"Stage {stage} failed: {type(error).__name__}: {error}. What it had saved is kept: run the same command again"
    )
    failed.__cause__ = error
    return failed
