"""What object storage answers, in the words of somebody who can do something about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import FlowctlError

WITHOUT = "or unset FLOWCTL_REMOTE to work without it"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


class RemoteError(FlowctlError):
    """The remote cannot be used as it is: no keys, no bucket, no access, no answer."""

    def __init__(self, url: str, problem: str, remedy: str) -> None:
        super().__init__(f"{url}: {problem}. {remedy}")
        self.url, self.problem, self.remedy = url, problem, remedy


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Raise what obstore raises in the block as RemoteError; FileNotFoundError only for a missing object.

    Nothing but requests belongs in the block: a local file that is missing would pass for an object.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, NotImplementedError) as error:
        text, _, inside = str(error).partition("\n\nDebug source:")
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
            raise
        raise RemoteError(url, *_explained(error, text, inside)) from error


def _explained(error: BaseException, text: str, inside: str) -> tuple[str, str]:
    """The problem and the remedy."""
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = ", ".join(part for part in (status and status[1], code and code[1]) if part)
    tries = re.search(r"after (\d+) retries", text)
    if code and code[1] == "NoSuchBucket":
        return "there is no such bucket", "Create it, or correct the URL"
    if "/latest/api/token" in text or "/latest/meta-data/" in text:  # the last place where keys are looked for
        return "no keys were found", f"Set {KEYS}, and AWS_ENDPOINT_URL where it is not Amazon's, {WITHOUT}"
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or (
        status and status[1] in ("401", "403")
    ):
        return f"access is refused ({said or 'no reason given'})", (
            f"Check {KEYS}, the clock, and that these keys may list, read and write there"
        )
    if "region" in text.lower() or (status and status[1] == "301"):
        return "it lies in another region", "Set AWS_REGION to that of the bucket"
    if "error sending request" in text or "timed out" in (text + inside).lower() or "operation timed out" in inside:
        why = next((words for sign, words in _SILENCE if sign in inside), "the connection failed")
        times = f" in {int(tries[1]) + 1} attempts" if tries else ""
        return f"no answer{times} ({why})", f"Check the network and AWS_ENDPOINT_URL, {WITHOUT}"
    if status and status[1].startswith("5"):
        times = f" to each of {int(tries[1]) + 1} attempts" if tries else ""
        return f"the server answers {said}{times}", f"Try again later, {WITHOUT}"
    return text.partition("\n")[0], "Check the URL and AWS_ENDPOINT_URL"


_SILENCE = (
    ("dns error", "unknown host"),
    ("ConnectionRefused", "connection refused"),
    ("refused", "connection refused"),
    ("TimedOut", "timed out"),
    ("timed out", "timed out"),
    ("certificate", "its certificate is not trusted"),
    ("Unreachable", "network unreachable"),
)
