"""What lies on disk of a bank, finished or not, without reading a pair of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from storage.bank.facts import COMPLETE, FACTS, INDEX, BankFacts, Identity, read_json
from storage.errors import MissingError


class Survey(NamedTuple):
    """`complete` of the shards are recorded, `size` bytes are on disk; a `finished` bank can be opened."""

    path: Path
    facts: BankFacts
    arrays: tuple[str, ...]
    complete: int
    size: int
    finished: bool


def survey(path: Path) -> Survey:
    """Look at the bank `path`. Raises MissingError if there is none, DamageError if its facts are not readable."""
    path = Path(path)
    if not (path / FACTS).is_file():
        raise MissingError(f"A bank must be a directory with a {FACTS}", str(path), "Give the path of one.")
    identity = read_json(path / FACTS, Identity)
    complete = sum(1 for _ in (path / COMPLETE).glob("*.json"))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Survey(path, identity.facts, identity.arrays, complete, size, (path / INDEX).is_file())


def banks_below(path: Path) -> list[Path]:
    """The banks in the directory `path`, itself included, in order of their names."""
    return sorted(file.parent for file in [path / FACTS, *path.glob(f"*/{FACTS}")] if file.is_file())
