"""Prefect's settings. They must stand in the environment before Prefect is imported, so nothing here imports it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOGGERS = "flowctl,pipeline"  # their records, and those of their children, are seen in the UI


def server_url() -> str | None:
    """The Prefect server that the user has named, if any."""
    return os.environ.get("PREFECT_API_URL") or None


def configure(debug: bool = False) -> None:
    """Quiet on the console, complete in the UI, and no calls home. What the user has set stays."""
    _must_be_early()
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
    """Keep everything that an embedded Prefect writes in `prefect_home`, away from the user's own profile."""
    _must_be_early()
    prefect_home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(prefect_home)
    # Slots that are taken stand in the database. In memory, Prefect's default, leases would not outlive the server, and
    # slots of before its restart would never come back.
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
    )
    os.environ.pop("PREFECT_PROFILE", None)  # it would name a profile that this home does not have
    os.environ.pop("PREFECT_PROFILES_PATH", None)


def _must_be_early() -> None:
    """Late settings would be ignored in silence."""
    assert "prefect" not in sys.modules, "Prefect has been imported before its settings were made"
