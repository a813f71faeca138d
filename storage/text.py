"""Whether a name or a path is text."""

from __future__ import annotations


def decodable(text: str) -> bool:
    """Whether its bytes are text. Python stands lone surrogates for those that are not (PEP 383)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
