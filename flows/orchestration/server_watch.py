"""Watch a flow run from inside: cancelled or paused in the UI, and whether its server still answers.

Prefect acts on such requests between tasks, or kills the process. A stage lasts hours, and can save and stop: so a
thread reads the flow run's state every few seconds and passes requests on to the stage.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.exceptions import Abort, ObjectNotFound
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.orchestration.server_errors import trouble
from pipeline.runtime.job import StopSignal
from storage.required import required

POLL_SECONDS = 3.0
LOST_SECONDS = 20.0  # that a finished stage waits for a server that does not answer
FAILURES = 2  # in a row, until a server counts as lost: a busy one may miss a request
# Otherwise Prefect retries for a minute before it gives up on a server.
FAIL_FAST = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 5.0}


def stop_reason(state: State | None) -> str | None:
    """Why a flow run in this state must stop; None if it may continue."""
    if state is None:
        return None
    if state.is_cancelling() or state.is_cancelled():
        return "cancelled in Prefect"
    return "paused in Prefect" if state.is_paused() else None


class ServerWatch:
    """The watch on one flow run, and whether its server answered the last requests."""

    def __init__(self, flow_run: UUID, stop: StopSignal, tell: Callable[[str], None]) -> None:
        self._flow_run, self._stop, self._tell = flow_run, stop, tell
        self._failures, self._lost_at = 0, 0.0
        self._error: Exception | None = None  # the last one
        self._over = threading.Event()

    @property
    def lost(self) -> bool:
        return self._failures >= FAILURES

    def wait_if_lost(self, seconds: float = LOST_SECONDS) -> None:
        """Return once the server answers. Raises Abort, which Prefect does not report, if it does not in this time."""
        while self.lost:
            if time.monotonic() - self._lost_at >= seconds:
                error = required(self._error, "the error that lost the server")
                raise Abort(f"The Prefect server {trouble(error)}") from error
            time.sleep(0.1)

    def poll(self) -> None:
        """Read the flow run's state again and again, until `close`."""
        with temporary_settings(FAIL_FAST), get_client(sync_client=True) as client:
            while not self._over.wait(POLL_SECONDS):
                try:
                    state = client.read_flow_run(self._flow_run).state
                except ObjectNotFound:  # deleted in the UI
                    self._answered(None)
                    return
                except Exception as error:
                    self._failed(error)
                    continue
                self._answered(stop_reason(state))

    def close(self) -> None:
        self._over.set()

    def _failed(self, error: Exception) -> None:
        self._error = error
        if self._failures + 1 == FAILURES:
            self._lost_at = time.monotonic()
        self._failures += 1  # the last, as another thread may wait from now on
        logging.getLogger("flowctl").debug("the flow run's state could not be read: %s", error)
        if self._failures == FAILURES:
            self._tell(f"The Prefect server {trouble(error)}; the stage continues without it")

    def _answered(self, reason: str | None) -> None:
        if self.lost:
            self._tell("The Prefect server answers again")
        self._failures = 0
        if reason and not self._stop:
            self._stop.request(reason)
            self._tell(f"{reason}: saving at the next possible point, then stopping")


@contextmanager
def watched(flow_run: UUID | str, stop: StopSignal, tell: Callable[[str], None]) -> Iterator[ServerWatch]:
    """Pass the UI's requests to cancel or pause the flow run on to `stop`, while the block lasts."""
    watch = ServerWatch(UUID(str(flow_run)), stop, tell)
    context = contextvars.copy_context()  # so that messages of the thread appear in the run's log
    thread = threading.Thread(target=context.run, args=(watch.poll,), name="flowctl-server-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.close()
        thread.join(1.0)
