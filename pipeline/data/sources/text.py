"""Names of files as text: one form for one name, and a form that every terminal and file can hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

SHOWN = 5  # names in a message


def normal(name: str) -> str:
    """The name in Unicode's form C: macOS writes the form D, and both are one name."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """The name with every character that cannot be printed escaped; bytes that are no text as \\xe9."""
    return "".join(
        letter
        if letter.isprintable()
        else f"\\x{ord(letter) - 0xDC00:02x}"
        if "\udc80" <= letter <= "\udcff"
        else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in name
    )


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*map(shown, names[:SHOWN]), *more])
