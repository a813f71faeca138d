"""What a stage raises, as an error for the user: which stage, what is kept, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from pipeline.engine.dag import Node
from storage.errors import DiskError, FlowctlError, OutOfMemory, StageFailed, out_of_memory
from storage.store import Store


def disk_error(error: OSError, node: Node, store: Store) -> DiskError | None:
    """A full, read-only or vanished disk as an error for the user; None for any other error."""
    remedies = {
        errno.ENOSPC: "Free some space",
        errno.EDQUOT: "Free some of your quota",
        errno.EROFS: "Make the store writable",
        errno.EACCES: "Make the store writable",
    }
    ours = Path(str(error.filename or store.home)).is_relative_to(store.home)
    if error.errno in remedies and (ours or error.errno != errno.EACCES):  # EACCES elsewhere: the user's images
        return DiskError(
            f"Stage {node.name} could not write {error.filename or 'its files'}: {error.strerror}. "
            f"Saved work stays. {remedies[error.errno]}; the next run resumes"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and ours:
        return DiskError(
            f"Stage {node.name}: {error.filename or store.home} vanished while it was in use. Check whether something "
            f"removes files from {store.home}, or whether its disk is gone"
        )
    return None


def memory_error(error: MemoryError | RuntimeError, node: Node) -> OutOfMemory | None:
    """A lack of memory, of the machine or of a GPU, as an error for the user; None for any other error."""
    if not out_of_memory(error):
        return None
    remedies = []
    if hasattr(node.config, "training"):
        remedies.append("raise `accumulate` in the training of this stage")
    if node.stage.kind in ("teacher", "evaluation") or getattr(node.config, "quality", None) is not None:
        remedies.append("lower compute.inference_batch")  # the others have batches of a fixed size, for the same bytes
    remedy = ", or ".join(remedies) or "free some memory, or run it where there is more"
    return OutOfMemory(
        f"Stage {node.name} ran out of memory ({str(error).partition(chr(10))[0] or type(error).__name__}). "
        f"Saved work stays. {remedy[0].upper()}{remedy[1:]}"
    )


def failure(stage: str, error: BaseException) -> FlowctlError:
    """A stage's exception as an error for the user."""
    if isinstance(error, FlowctlError):
        return error
    failed = StageFailed(f"Stage {stage} failed: {type(error).__name__}: {error}. Saved work stays")
    failed.__cause__ = error
    return failed
