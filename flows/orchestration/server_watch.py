"""What is asked of a running flow from outside: cancel it, pause it; and whether its server is still there.

Prefect acts on such wishes between tasks, or kills the process. A stage lasts hours, and can save and leave: so a
thread looks at the flow run's state every few seconds and passes the wish on to the stage.
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

from pipeline.runtime.job import StopSignal

EVERY = 3.0  # seconds between looks
PATIENCE = 20.0  # seconds that a server may be gone until a stage that is finished gives it up
FAILURES = 2  # in a row, until a server is taken to be gone: a busy one may miss a look
# Prefect would try again for a minute before it gives up on a server that is gone.
IMPATIENT = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 5.0}


def wish(state: State | None) -> str | None:
    """Why a flow run in this state should stop, if it should."""
    if state is None:
        return None
    if state.is_cancelling() or state.is_cancelled():
        return "cancelled in Prefect"
    return "paused in Prefect" if state.is_paused() else None


class ServerWatch:
    """The connection to the server, as the last looks found it."""

    def __init__(self, flow_run: UUID, stop: StopSignal, tell: Callable[[str], None]) -> None:
        self._flow_run, self._stop, self._tell = flow_run, stop, tell
        self._failures, self._lost_at = 0, 0.0
        self._over = threading.Event()

    @property
    def lost(self) -> bool:
        return self._failures >= FAILURES

    def hold(self, patience: float = PATIENCE) -> None:
        """Return if the server is there, or comes back in time. Raises Abort, which Prefect does not report to it."""
        while self.lost:
            if time.monotonic() - self._lost_at >= patience:
                raise Abort("The Prefect server went away")
            time.sleep(0.1)

    def listen(self) -> None:
        """Look, until the block ends."""
        with temporary_settings(IMPATIENT):
            client = get_client(sync_client=True)
            while not self._over.wait(EVERY):
                try:
                    state = client.read_flow_run(self._flow_run).state
                except ObjectNotFound:  # deleted: there is nobody left to ask for anything
                    return
                except Exception as error:
                    self._missed(error)
                    continue
                self._heard(wish(state))

    def close(self) -> None:
        self._over.set()

    def _missed(self, error: Exception) -> None:
        self._failures += 1
        logging.getLogger("flowctl").debug("the flow run's state could not be read: %s", error)
        if self._failures == FAILURES:
            self._lost_at = time.monotonic()
            self._tell("The Prefect server does not answer; the stage goes on without it")

    def _heard(self, reason: str | None) -> None:
        if self.lost:
            self._tell("The Prefect server answers again")
        self._failures = 0
        if reason and not self._stop:
            self._stop.request(reason)
            self._tell(f"{reason}: saving at the next possible point, then stopping")


@contextmanager
def watched(flow_run: UUID | str, stop: StopSignal, tell: Callable[[str], None]) -> Iterator[ServerWatch]:
    """Pass on to `stop` what the UI asks of the flow run, while the block lasts."""
    line = ServerWatch(UUID(str(flow_run)), stop, tell)
    context = contextvars.copy_context()  # so that what the thread tells is logged with the run
    thread = threading.Thread(target=context.run, args=(line.listen,), name="flowctl-listening", daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join(1.0)
