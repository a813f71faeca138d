"""From `s3://bucket/prefix` to obstore's client, with its retries and time limits. Keys come from the environment."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from storage.errors import UsageError
from storage.text import without_password

if TYPE_CHECKING:
    from obstore.store import S3Store

URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,254})(?P<prefix>(?:/[A-Za-z0-9._=+@ -]+)*)/?")
# Waits of 0.2, 0.4, 0.8 ... seconds, with jitter: a server that is gone is given up after some seconds, and one that is
# busy (503 SlowDown, as S3 says under load) is given time.
RETRIES, FIRST_WAIT, LONGEST_WAIT, GIVE_UP = 6, 0.2, 8.0, 120.0


def parse(url: str) -> tuple[str, str]:
    """Bucket and prefix of a URL, the prefix without slashes around it. Raises UsageError for any other URL."""
    match = URL.fullmatch(url)
    if match is None or {".", ".."} & set(url.split("/")):
        raise UsageError(
            "A remote must be s3://bucket or s3://bucket/prefix",
            url,
            "Name a server other than Amazon's by AWS_ENDPOINT_URL, and keys by AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    return match["bucket"], match["prefix"].strip("/")


def _check_endpoint() -> None:
    """Raises UsageError for a server that is not named by a URL: obstore would blame the remote's."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    try:
        parts = urlsplit(endpoint)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in endpoint
    except ValueError:  # brackets, or a port that is no number
        named = False
    if endpoint and not named:
        raise UsageError(
            "AWS_ENDPOINT_URL must be http:// or https:// and a host",
            without_password(endpoint),
            "Correct it, or unset it for Amazon's S3.",
        )


def client(url: str) -> S3Store:
    """A client for what lies below `url`. Nothing is asked yet. Raises UsageError for a URL, or without obstore."""
    bucket, prefix = parse(url)
    _check_endpoint()
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise UsageError(
            "obstore must be installed for object storage",
            url,
            "Install it: pip install -e '.[s3]' in the project's folder",
        ) from None
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            checksum_algorithm="SHA256",  # sent with each object: the server refuses corrupt uploads
            client_options={
                "allow_http": True,  # only where AWS_ENDPOINT_URL says http://
                "connect_timeout": timedelta(seconds=10),
                "timeout": timedelta(minutes=5),
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=GIVE_UP),
                "backoff": {
                    "init_backoff": timedelta(seconds=FIRST_WAIT),
                    "max_backoff": timedelta(seconds=LONGEST_WAIT),
                    "base": 2,
                },
            },
        )
    except (BaseError, ValueError) as error:
        raise UsageError(
            "The AWS_* variables must be valid", str(error).partition("\n")[0], "Correct the one named"
        ) from None
