"""One stage at a time on each GPU of a machine.

Each GPU has a lock file in the system's temporary directory, named after the device's UUID, so that all stores and all
users of the machine share it. The kernel frees a lock as soon as its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from flows.session.session import Session
from flows.session.waiting import wait_for
from pipeline.engine.dag import Node
from pipeline.engine.execute import Outcome
from pipeline.engine.rerun import reusable
from pipeline.recipe.sections import Compute
from storage.errors import Interrupted
from storage.home import default_home

POLL = 0.5  # seconds


class _Busy(Exception):
    """Another process runs this stage: free the GPUs while waiting for it."""


def with_gpu_lock(
    node: Node, session: Session, work: Callable[[Callable[[str], None]], Outcome], fetched: bool = False
) -> Outcome:
    """What `work` returns, called while this process holds the locks of the GPUs that the stage uses.

    `work` gets a function to call with the holder's name if another process holds the lock of the stage. Locks of GPUs
    are taken before that lock, and freed while waiting for it: so no two processes wait for each other. A stage that is
    reused or `fetched` needs no GPU.
    """
    while True:
        needed = _computes(node) and not fetched and reusable(node, session.store) is None
        gpus = devices(session.recipe.compute, node.stage.parallel) if needed else {}
        if not gpus:
            return work(lambda holder: wait_for(holder, node, session))
        try:
            with _locked(gpus, node, session):
                return work(_refuse)
        except _Busy as busy:
            holder = str(busy)
        wait_for(holder, node, session)


def gpus_locked(node: Node, session: Session) -> AbstractContextManager[None]:
    """The locks of the GPUs that a stage in several processes uses, on a machine that does not hold the stage's."""
    return _locked(devices(session.recipe.compute, parallel=True), node, session)


def _computes(node: Node) -> bool:
    """Whether the stage uses the device: images are read without it, unless they are encoded."""
    return node.stage.parallel or node.stage.alone or getattr(node.config, "autoencoder", None) is not None


def _refuse(holder: str) -> None:
    raise _Busy(holder)


def devices(compute: Compute, parallel: bool) -> dict[str, str]:
    """The GPUs of this machine that a stage uses, as {UUID: readable name}; empty on a CPU."""
    import torch

    if compute.device == "cpu" or not torch.cuda.is_available():
        return {}
    first = int(compute.device.partition(":")[2] or 0)
    used = range(compute.nproc) if parallel and compute.nproc > 1 else [first]
    return {str(torch.cuda.get_device_properties(index).uuid): f"GPU {index}" for index in used}


def lock_path(uuid: str) -> Path:
    """The lock file of a GPU, for all stores of the machine; for this store alone where nothing else can be written."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        folder = default_home()
    return folder / f"flowctl-gpu-{uuid}.lock"


@contextmanager
def _locked(gpus: dict[str, str], node: Node, session: Session) -> Iterator[None]:
    """Hold the locks of these GPUs. Every process takes them in the order of the UUIDs, which excludes deadlocks."""
    with ExitStack() as stack:
        for uuid in sorted(gpus):
            lock = stack.enter_context(_take(lock_path(uuid), gpus[uuid], node, session))
            facts = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "stage": node.name,
                "recipe": session.recipe.name,
            }
            with suppress(OSError):  # on a full disk the holder stays anonymous
                lock.truncate(0)
                lock.write(json.dumps(facts))
                lock.flush()
        yield


def _take(path: Path, gpu: str, node: Node, session: Session) -> IO[str]:
    """The lock file, locked until it is closed. Raises Interrupted on a stop signal."""
    while (lock := _try(path)) is None:
        holder = _holder(path)
        with session.waiting(node.name, f"{gpu}, used by {holder}"):
            while lock is None and _holder(path) == holder:
                if session.stop:
                    raise Interrupted(f"Stopped ({session.stop.reason}) while {node.name} was waiting for {gpu}")
                time.sleep(POLL)
                lock = _try(path)
        if lock is not None:
            break
    return lock


def _try(path: Path) -> IO[str] | None:
    """The lock file, locked; None if another process holds it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)  # the kernel forbids O_CREAT on another user's file in a shared directory
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        with suppress(PermissionError):  # another user was faster
            os.fchmod(descriptor, 0o666)  # whatever the umask: every user of the machine shares the lock
    lock = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock.fileno()).st_ino == os.stat(path).st_ino:  # it may have been deleted meanwhile
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def _holder(path: Path) -> str:
    """Who wrote the lock file, in words."""
    try:
        facts = json.loads(path.read_text())
        return f"process {facts['pid']} on {facts['host']} ({facts['stage']} of {facts['recipe']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
