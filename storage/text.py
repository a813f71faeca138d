"""Whether a name or a path is text, and what of it may be shown."""

from __future__ import annotations

import re


def decodable(text: str) -> bool:
    """Whether its bytes are text. Python stands lone surrogates for those that are not (PEP 383)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def without_password(url: str) -> str:
    """The URL, or what was given for one, with *** for a user and a password in it."""
    return re.sub(r"[^/@\s]+@", "***@", url)
