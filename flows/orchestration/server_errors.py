"""Errors of Prefect's client as what they are: no answer, an answer that refuses, an answer that cannot be read.

Prefect's modules are imported inside: its settings must stand before it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storage.errors import FlowctlError

if TYPE_CHECKING:
    import httpx

LONGEST = 300  # characters of an answer that are shown
BUSY = (408, 429)


class ServerFailed(FlowctlError):
    """The embedded Prefect server, or the one that PREFECT_API_URL names, does not answer."""

    retryable = True


class ServerRefused(FlowctlError):
    """The Prefect server answers a request with an error; `status` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status, self.retryable = status, status in BUSY or status >= 500


class ServerUnread(FlowctlError):
    """The Prefect server's answer is none that the client here can read."""


def explained(error: BaseException, when: str, log: str) -> FlowctlError | None:
    """An exception of Prefect's client as an error for the user; None if it is of something else. `when` says what was
    done meanwhile, and `log` names the server's log."""
    import httpx
    from prefect import __version__
    from pydantic import ValidationError

    for cause in _causes(error):
        if isinstance(cause, FlowctlError):
            return cause
        if (response := _response(cause)) is not None:
            asked = f"{response.request.method} {response.request.url.path}"
            answer = " ".join(response.text[:LONGEST].split())
            return ServerRefused(
                f"The Prefect server must accept what it is asked {when}, got HTTP {response.status_code} for {asked}: "
                f"{answer}. {_remedy(response.status_code, log, __version__)}",
                response.status_code,
            )
        if isinstance(cause, httpx.RequestError | ConnectionError | TimeoutError):
            return ServerFailed(
                f"The Prefect server must answer {when}, got {type(cause).__name__}: {first_line(cause)}. "
                f"See whether it still runs, and read {log}"
            )
        if isinstance(cause, ValidationError | json.JSONDecodeError):
            return ServerUnread(
                f"The Prefect server must answer {when} as Prefect {__version__} does, got an answer that it cannot "
                f"read ({first_line(cause)}). Use one version of Prefect for both, and see that PREFECT_API_URL is its "
                "API"
            )
    return None


@contextmanager
def explaining(when: str, log: str) -> Iterator[None]:
    """Errors of Prefect's client inside the block become errors for the user; others stay what they are."""
    try:
        yield
    except Exception as error:
        known = explained(error, when, log)
        if known is None or known is error:
            raise
        raise known from error


def trouble(error: BaseException) -> str:
    """What a server does instead of answering as it should, in words."""
    response = next((found for cause in _causes(error) if (found := _response(cause)) is not None), None)
    return "does not answer" if response is None else f"answers with HTTP {response.status_code}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from: Prefect's own often stand for one of httpx."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _response(error: BaseException) -> httpx.Response | None:
    """The server's answer, where it is the reason; Prefect's exceptions for a few statuses keep httpx's."""
    import httpx

    error = getattr(error, "http_exc", error)
    return error.response if isinstance(error, httpx.HTTPStatusError) else None


def _remedy(status: int, log: str, version: str) -> str:
    if status in (401, 403):
        return "Set PREFECT_API_KEY or PREFECT_API_AUTH_STRING to what it asks for"
    if status == 404:
        return "Correct PREFECT_API_URL, which ends in /api; what was deleted in the UI is made by a new run"
    if status in BUSY:
        return "It has too much to do; wait a while"
    if status >= 500:
        return f"Read {log}"
    return f"Use one version of Prefect for the server and here, where it is {version}"


def first_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__
