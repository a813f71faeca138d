"""Prefect's settings. They must stand in the environment before Prefect is imported, so nothing here imports it early.

Prefect reads settings from the environment, from .env, prefect.toml and pyproject.toml in the current directory, and
from a profile. All of these belong to the user, and to the server that PREFECT_API_URL names. A server of our own, and
the client that talks to it, get what stands here and nothing else: the user's database, credentials and headers are for
another server.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from flows.session.process import bypass_proxies

LOGGERS = "flowctl,pipeline"  # their records, and those of their children, are seen in the UI
# Relative to the server's directory: in a URL a path would need quotes that neither Prefect nor SQLAlchemy takes off.
DATABASE = "sqlite+aiosqlite:///prefect.db"
FILE_SOURCES = (  # of prefect.settings.base
    "FilteredDotEnvSettingsSource",
    "PrefectTomlConfigSettingsSource",
    "PyprojectTomlConfigSettingsSource",
    "ProfileSettingsTomlLoader",
)
# Where Prefect would persist results. Ours are artifacts, and a block that the server does not know would end each run.
RESULT_STORAGE = ("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK")


def server_url() -> str | None:
    """The Prefect server that the user has named, if any."""
    return os.environ.get("PREFECT_API_URL") or None


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by its loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def configure(debug: bool = False) -> None:
    """Quiet on the console, complete in the UI, and no calls home.

    The user's settings of Prefect stay where they name a server, and are dropped otherwise.
    """
    _must_be_early()
    bypass_proxies()
    dropped = "PREFECT_" if server_url() is None else RESULT_STORAGE
    for name in [name for name in os.environ if name.upper().startswith(dropped)]:  # names count in any case
        del os.environ[name]
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # the server's
        "DO_NOT_TRACK": "1",  # the client's
        "PREFECT_LOGGING_EXTRA_LOGGERS": LOGGERS,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # our loggers also speak outside a flow
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 seconds; 5 would be a minute for each call to a server that is gone
        "PREFECT_LOGGING_LEVEL": "DEBUG" if debug else "INFO",
        # The flow's errors reach the user as one line of ours; Prefect's tracebacks go to the UI only.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "INFO" if debug else "WARNING",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def confine(prefect_home: Path) -> None:
    """Keep everything that a server of our own writes in `prefect_home`. Its working directory must be that, too."""
    _must_be_early()
    prefect_home.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": DATABASE,
    }


def import_client(url: str, prefect_home: Path | None = None) -> None:
    """Import Prefect's client, for the server at `url`; for a server of our own `prefect_home` is its home.

    For our own server the files in the current directory and the user's profile are not read, now or later. A server on
    this machine is reached without the proxies of the environment, which httpx would set up even for hosts that are
    exempt from them, and fail where it does not know their scheme.
    """
    with contextlib.chdir(prefect_home or "."):
        import prefect.settings.base

    if prefect_home is not None:
        for name in FILE_SOURCES:
            setattr(prefect.settings.base, name, _no_source())
    if is_loopback(url):
        from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

        for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
            setattr(client, "__init__", functools.partialmethod(client.__init__, trust_env=False))  # noqa: B010


def _no_source() -> type:
    """A source of settings that has none."""
    from pydantic_settings import PydanticBaseSettingsSource

    class NoSource(PydanticBaseSettingsSource):
        def __init__(self, settings_cls: type, **options: object) -> None:
            super().__init__(settings_cls)

        def get_field_value(self, field: object, field_name: str) -> tuple[None, str, bool]:
            return None, field_name, False

        def __call__(self) -> dict[str, object]:
            return {}

    return NoSource


def _must_be_early() -> None:
    """Late settings would be ignored in silence."""
    assert "prefect" not in sys.modules, "Prefect is imported already; its settings must be set before"
