"""Which failures may pass if one tries again: those of the network and of network disks, and nothing else."""

from __future__ import annotations

import errno

TRANSIENT = {
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
ATTEMPTS, BACKOFF = 2, [2, 10]  # further attempts, and the seconds before each


def transient(error: BaseException) -> bool:
    """A full or read-only disk, a missing file or wrong input is the same at the next try; these may not be."""
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in TRANSIENT
    )


def may_retry(task, task_run, state) -> bool:
    """Prefect's `retry_condition_fn`."""
    return transient(state.result(raise_on_failure=False))
