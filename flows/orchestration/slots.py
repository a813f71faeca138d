"""Slots of Prefect's global concurrency limits, held for hours, also through a server that is away for a while.

A lease lasts a minute, and a thread renews it. That of Prefect's own context manager ends for good after three
renewals that fail, and then the server gives to another what is still in use. This one goes on: it renews the lease
once the server answers again and, where that has ended meanwhile or was not to be had in the first place, takes anew.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import temporary_settings

from flows.orchestration.server_watch import IMPATIENT

LEASE = 60  # seconds, the least that Prefect takes: so long a killed holder keeps the others waiting
EVERY = 15.0  # seconds between renewals, so that a few may fail
_LOCKED, _GONE = 423, (404, 410)  # what the server says of slots that others hold, and of a lease that has ended

log = logging.getLogger("flowctl")


class Slots:
    """One slot of each limit: asked for with `take`, kept until the end of a `with` block, given back there."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._lease: UUID | None = None
        self._told = False
        self._over = threading.Event()
        context = contextvars.copy_context()  # so that what the thread tells is logged with the run
        self._thread = threading.Thread(target=context.run, args=(self._keep,), name="flowctl-slots", daemon=True)

    def take(self) -> bool:
        """Whether the slots were free, and are ours now. Raises whatever trouble the server has."""
        with get_client(sync_client=True) as client:
            create_limits(client, self.names)
            try:
                reply = client.increment_concurrency_slots_with_lease(self.names, 1, "concurrency", LEASE)
            except PrefectHTTPStatusError as error:
                if error.response.status_code != _LOCKED:
                    raise
                return False
        self._lease = UUID(reply.json()["lease_id"])
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(EVERY)
        if self._lease is not None:
            with suppress(Exception), temporary_settings(IMPATIENT), get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(self._lease)  # else it ends by itself

    def _keep(self) -> None:
        with temporary_settings(IMPATIENT):
            while not self._over.wait(EVERY):
                try:
                    if not (self._renewed() or self.take() or self._told):
                        self._told = True
                        log.warning(
                            "The Prefect server no longer counts %s as in use by this stage, and has given it "
                            "to another: both go on",
                            " and ".join(self.names),
                        )
                except Exception as error:  # it is asked again
                    log.debug("%s could not be kept in Prefect: %s", " and ".join(self.names), error)

    def _renewed(self) -> bool:
        """Whether the lease lasts. Raises what trouble the server has, which does not end a lease."""
        if self._lease is None:
            return False
        try:
            with get_client(sync_client=True) as client:
                client.renew_concurrency_lease(self._lease, LEASE)
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in _GONE:
                raise
            self._lease = None
        return self._lease is not None


def create_limits(client: SyncPrefectClient, names: list[str]) -> None:
    """Limits of 1 where there are none yet. What someone has set stays."""
    for name in names:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:  # another process was faster
                continue
