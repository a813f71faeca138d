"""Produce one artifact: lock its stage, then reuse it, fetch it, or run or resume the stage and publish."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.engine import rerun
from pipeline.engine.dag import Node, external_digest
from pipeline.engine.elastic import await_orphans, run_in_ranks
from pipeline.engine.provenance import provenance
from pipeline.engine.remote import fetched
from pipeline.engine.saved_work import changed_inputs, clear, contents, time_to_record, write_inputs
from pipeline.engine.stage_errors import disk_error, memory_error
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.sections import Compute
from pipeline.runtime.job import PROGRESS, Job, Listener, Progress, StopSignal, read_saved
from pipeline.runtime.timings import Timings
from storage.artifact import Artifact, record_files
from storage.atomic import write_json
from storage.errors import DamageError, StageFailed
from storage.remote import Remote, RemoteError
from storage.store import PREFIX, Store
from storage.trees import remove_tree

log = logging.getLogger(__name__)
ATTEMPTS = "attempts.json"


class InputsChanged(StageFailed):
    """Files outside the store changed while a stage read them."""

    retryable = True


@dataclass(frozen=True)
class Outcome:
    """How a run got an artifact, and the seconds that it took."""

    action: Literal["reused", "fetched", "resumed", "run"]
    artifact: Artifact
    seconds: float
    timings: Timings | None = None  # of the attempt that ended, where the stage ran


def _a_moment(holder: str) -> None:
    """Before the next try to take a lock that `holder` has."""
    time.sleep(0.2)


def execute(
    node: Node,
    inputs: Mapping[str, Artifact],
    store: Store,
    compute: Compute,
    *,
    listeners: tuple[Listener, ...] = (),
    stop: StopSignal | None = None,
    waiting: Callable[[str], None] = _a_moment,
    remote: Remote | None = None,
    offered: bool = False,
) -> Outcome:
    """The node's artifact: reused if the store or `remote` has a valid one; otherwise the stage runs, or resumes from
    its work directory. A requested rerun (`pipeline.engine.rerun`) always runs.

    `offered` says that the plan has seen it on `remote`: if it then cannot be fetched, that is an error.
    Raises FlowctlError for expected failures; the stage's saved work stays for the next call.
    """
    started, stop = time.monotonic(), StopSignal() if stop is None else stop
    try:
        with store.lock(node.name, node.fingerprint, waiting):
            await_orphans(store.work(node.name, node.fingerprint), stop)
            found = _found(node, store, remote, offered, listeners, stop)
            if found is not None:
                action, artifact = found
                return Outcome(action, artifact, time.monotonic() - started)
            return _run(node, inputs, store, compute, listeners, stop, started)
    except (OSError, MemoryError, RuntimeError) as error:
        explained = disk_error(error, node, store) if isinstance(error, OSError) else memory_error(error, node)
        if explained is None:
            raise
        raise explained from error


def _found(
    node: Node, store: Store, remote: Remote | None, offered: bool, listeners: tuple[Listener, ...], stop: StopSignal
) -> tuple[Literal["reused", "fetched"], Artifact] | None:
    """The artifact, reused from the store or fetched from `remote`. Without one, the stage's folder is made for it."""
    work = store.work(node.name, node.fingerprint)
    artifact = rerun.reusable(node, store, lambda damage: _warn(node, damage))
    if artifact is not None or work.is_symlink():
        remove_tree(work)  # a process that was killed right after it published left this behind
    if artifact is not None:
        return "reused", artifact
    store.prepare_stage(node.name)
    (work / PROGRESS).unlink(missing_ok=True)  # of a process that is gone: `status` would show that one
    if remote is None or rerun.is_requested(node, store):
        return None
    artifact = _fetched(node, store, remote, offered, listeners, stop)
    return None if artifact is None else ("fetched", artifact)


def _run(
    node: Node,
    inputs: Mapping[str, Artifact],
    store: Store,
    compute: Compute,
    listeners: tuple[Listener, ...],
    stop: StopSignal,
    started: float,
) -> Outcome:
    """Run the stage, or resume it, and publish its artifact; `started` is when it was asked for, by the monotonic
    clock."""
    work = store.work(node.name, node.fingerprint)
    resumed = _prepare(node, work, inputs)
    attempts = _count_attempt(work)
    for read in inputs.values():
        read.check_files()
    job = Job(
        node.name,
        node.config,
        inputs,
        work,
        compute,
        Progress(node.name, work, listeners),
        stop,
        store.monitor(node.name, node.fingerprint, node.label),
    )
    shared = node.stage.parallel and compute.world > 1
    try:
        result = run_in_ranks(job) if shared else node.stage.module().run(job)
    finally:
        _free_memory()
    _check_external(node, store)
    _check_inputs(node, work, store)
    _remove_leftovers(work)  # of ranks that died and were started again
    files = record_files(job.out)
    seconds = time.monotonic() - started
    created = time_to_record(datetime.now(UTC), seconds, node.fingerprint, inputs.values(), store)
    artifact = Artifact(
        stage=node.name,
        stage_version=node.stage.version,
        name=_label(node, store),
        fingerprint=node.fingerprint,
        config=fingerprint_fields(node.config),
        inputs={role: n.fingerprint for role, n in node.inputs.items()},
        metrics=node.stage.result.model_validate(result).model_dump(mode="json"),
        files=files,
        provenance=provenance(created, seconds, compute, resumed=attempts - 1),
    )
    published = store.publish(artifact, job.out)
    return Outcome("resumed" if resumed else "run", published, time.monotonic() - started, job.timings)


def _prepare(node: Node, work: Path, inputs: Mapping[str, Artifact]) -> bool:
    """Make the work directory ready; True where it has saved work. Work on inputs of other bytes is dropped."""
    rerun.start(work)
    given = contents(inputs)
    if roles := changed_inputs(work, given):
        log.warning("%s: %s was made again, of other bytes; saved work is dropped", node.name, ", ".join(roles))
        clear(work, but=rerun.REQUEST)
    resumed = read_saved(work) is not None
    work.mkdir(parents=True, exist_ok=True)
    write_inputs(work, given)
    _remove_leftovers(work)
    return resumed


def _free_memory() -> None:
    """Give back what a stage leaves behind: networks and optimizers in cycles, and a GPU's blocks, which torch keeps in
    this process: ranks and other runs on that GPU would not get them."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _label(node: Node, store: Store) -> str:
    """The readable name. An artifact that several recipes share keeps the name that it has."""
    for directory in store.directories(node.name, node.fingerprint):
        return directory.name[: -PREFIX - 1]
    return node.label


def _check_inputs(node: Node, work: Path, store: Store) -> None:
    """Warn of inputs that another run replaced, by other bytes, while the stage read them."""
    now = {}
    for role, source in node.inputs.items():
        with suppress(DamageError):
            if (found := store.find(role, source.fingerprint)) is not None:
                now[role] = found
    if roles := changed_inputs(work, contents(now)):
        log.warning(
            "%s: %s was made again, of other bytes, while this stage ran, and it may have read both: run again with "
            "--force %s",
            node.name,
            ", ".join(roles),
            node.name,
        )


def _warn(node: Node, damage: DamageError) -> None:
    log.warning("%s: %s: %s; it is replaced", node.name, damage.what, damage.flaw)


def _fetched(
    node: Node, store: Store, remote: Remote, offered: bool, listeners: tuple[Listener, ...], stop: StopSignal
) -> Artifact | None:
    """The artifact from `remote`. If the plan did not count on the remote, its silence is no reason to stop."""
    try:
        return fetched(node, store, remote, listeners, stop)
    except RemoteError as error:
        if offered:
            raise
        log.warning("%s: %s; the stage runs here", node.name, error)
        return None


def _check_external(node: Node, store: Store) -> None:
    """The fingerprint names files outside the store by their content at the time of the plan."""
    if node.external != external_digest(node.config, store.home / "cache"):
        raise InputsChanged(
            f"Stage {node.name}: files that it reads from outside the store changed during the run. "
            "No artifact was published. Leave them as they are while it runs"
        )


def _count_attempt(work: Path) -> int:
    """How often a stage has started in this work directory, this time included."""
    try:
        attempts = int(json.loads((work / ATTEMPTS).read_bytes())["attempts"]) + 1
    except (OSError, ValueError, KeyError, TypeError):
        attempts = 1
    write_json(work / ATTEMPTS, {"attempts": attempts})
    return attempts


def _remove_leftovers(work: Path) -> None:
    """Remove half-written files of killed processes, which would become part of the artifact, and foreign links."""
    for leftover in list(work.rglob("*")):
        if leftover.is_symlink() or leftover.name.endswith(".partial"):
            remove_tree(leftover)
