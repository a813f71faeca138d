"""A damaged bank becomes an unfinished one, without the shards that are not as written and with all others.

A BankWriter then continues it, and writes those shards alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from storage.atomic import folder_aside, fsync_path, sha256_file, write_bytes
from storage.bank.facts import (
    COMPLETE,
    FACTS,
    INDEX,
    REMEDY,
    FileFact,
    Identity,
    Index,
    Shard,
    ShardRecord,
    readable,
    record_path,
)
from storage.bank.layout import Layout
from storage.bank.reader import Problem
from storage.bank.shardfile import ShardFile
from storage.bank.writer import BankWriter
from storage.errors import DamageError


def flaws(path: Path) -> list[Problem]:
    """Read every byte of a bank, finished or not: all that is missing or not as it was written. Empty when whole.

    A shard of an unfinished bank that has no record is not written yet, which is no flaw.
    """
    path = Path(path)
    identity, index = _claims(path, ())
    return [*_claim_flaws(path, identity, index), *_shard_flaws(path, identity or index, index)]


def reopen(path: Path, damaged: Collection[str] = ()) -> list[int]:
    """Mark the bank as incomplete, delete damaged shards, and return their numbers.

    `damaged` names damaged files below `path`, in addition to those that the bank's own checksums name.
    Foreign files are removed. A crash at any time leaves the bank unchanged, or marked as incomplete.

    Raises DamageError where the facts or Zarr's metadata are lost, and cannot be written with the bytes that they had.
    """
    path = Path(path)
    identity, index = _claims(path, damaged)
    bank = identity or index
    if bank is None or (index is not None and not _alike(bank, index)):
        raise DamageError(f"bank {path}", f"{FACTS} and {INDEX} do not identify it", REMEDY)
    lost = {problem.file for problem in _claim_flaws(path, identity, index)} | set(damaged)
    _restore(path, bank, lost & {FACTS, *_metadata(bank)}, {} if index is None else index.metadata)
    bad = {problem.shard for problem in _shard_flaws(path, bank, index) if problem.shard is not None}
    bad |= {shard.index for shard in bank.facts.shards if lost & set(_files(bank, shard.index))}
    _drop(path, bank, bad)
    return sorted(bad)


def _drop(path: Path, bank: Identity, shards: Collection[int]) -> None:
    """The claim that the bank is complete goes first, then those of the shards, then the files that these cover."""
    (path / INDEX).unlink(missing_ok=True)
    fsync_path(path)
    (path / COMPLETE).mkdir(exist_ok=True)
    for shard in shards:
        record_path(path, shard).unlink(missing_ok=True)
    fsync_path(path / COMPLETE)
    retained = {
        FACTS,
        *_metadata(bank),
        *(f for s in bank.facts.shards if s.index not in shards for f in _files(bank, s.index)),
    }
    for file in [file for file in path.rglob("*") if file.is_file()]:
        if file.relative_to(path).as_posix() not in retained:
            file.unlink()


def _restore(path: Path, bank: Identity, lost: Collection[str], digests: dict[str, str]) -> None:
    """Write files that every bank of these facts begins with."""
    if not lost:
        return
    with folder_aside(path) as folder:
        fresh = BankWriter(Path(folder, path.name), bank.facts, bank.arrays).path
        for file in sorted(lost):
            if digests.get(file) not in (None, sha256_file(fresh / file)):
                raise DamageError(f"bank {path}, {file}", "is lost, and would now be written in another way", REMEDY)
            write_bytes(path / file, (fresh / file).read_bytes())


def _claims(path: Path, damaged: Collection[str]) -> tuple[Identity | None, Index | None]:
    """The content of facts.json and bank.json, as far as readable."""
    return (
        None if FACTS in damaged else readable(path / FACTS, Identity),
        None if INDEX in damaged else readable(path / INDEX, Index),
    )


def _claim_flaws(path: Path, identity: Identity | None, index: Index | None) -> Iterator[Problem]:
    """Flaws of the files that belong to no shard."""
    if index is None and (path / INDEX).exists():
        yield Problem(None, INDEX, "cannot be read")
    if identity is None:
        yield Problem(None, FACTS, "cannot be read" if (path / FACTS).exists() else "is missing")
    elif index is not None and not _alike(identity, index):
        yield Problem(None, FACTS, f"contradicts {INDEX}")
    for file in _metadata(identity or index):
        recorded = None if index is None else index.metadata.get(file)
        if not (path / file).is_file():
            yield Problem(None, file, "is missing")
        elif recorded not in (None, sha256_file(path / file)):
            yield Problem(None, file, "its bytes are not those written")
        elif file != "zarr.json" and _layout(path / file) is None:
            yield Problem(None, file, "cannot be read")


def _shard_flaws(path: Path, bank: Identity | None, index: Index | None) -> Iterator[Problem]:
    """Flaws of the shards; none where Zarr's metadata cannot be read."""
    read = {name: _layout(path / name / "zarr.json") for name in bank.arrays} if bank else {}
    layouts = {name: layout for name, layout in read.items() if layout is not None}
    if bank is None or len(layouts) < len(read):
        return
    for shard in bank.facts.shards:
        indexed = index.shards[shard.index] if index is not None and shard.index < len(index.shards) else None
        yield from _flaws_of(path, bank, layouts, shard, indexed)


def _flaws_of(
    path: Path, bank: Identity, layouts: dict[str, Layout], shard: Shard, indexed: ShardRecord | None
) -> Iterator[Problem]:
    """Flaws of one shard: of its record, its files, or its entry in bank.json. Two of the three are right."""
    place = record_path(path, shard.index)
    name, record = place.relative_to(path).as_posix(), _record(place, shard, bank)
    if record is None and place.is_file():
        yield Problem(shard.index, name, "is not the record of this shard")
    elif record is None and indexed is not None:
        yield Problem(shard.index, name, "is missing")
    elif record is not None and indexed not in (None, record):
        if not any(_file_flaws(path, bank, layouts, shard, record)):
            yield Problem(None, INDEX, f"contradicts record and files of shard {shard.index}")
            return
        yield Problem(shard.index, name, f"contradicts {INDEX}")
    claim = indexed or record
    if claim is not None:
        yield from _file_flaws(path, bank, layouts, shard, claim)


def _file_flaws(
    path: Path, bank: Identity, layouts: dict[str, Layout], shard: Shard, claim: ShardRecord
) -> Iterator[Problem]:
    for name, layout in layouts.items():
        file = bank.facts.file(path, name, shard.index)
        flaw = _file_flaw(file, layout, claim.files[name])
        if flaw:
            yield Problem(shard.index, file.relative_to(path).as_posix(), flaw)


def _file_flaw(file: Path, layout: Layout, fact: FileFact) -> str | None:
    if not file.is_file():
        return "is missing"
    if (size := file.stat().st_size) != fact.size:
        return f"has {size} bytes instead of {fact.size}"
    with suppress(ValueError, RuntimeError):  # a checksum, or a decompressor's error on bad bytes
        if ShardFile(file, layout, fact.size).digest() == fact.checksums:
            return None
    return "its bytes are not those written"


def _record(place: Path, shard: Shard, bank: Identity) -> ShardRecord | None:
    record = readable(place, ShardRecord)
    fits = record and (record.start, record.stop, set(record.files)) == (shard.start, shard.stop, set(bank.arrays))
    return record if fits else None


def _layout(file: Path) -> Layout | None:
    try:
        return Layout.read(file.parent)
    except Exception:  # Zarr's metadata may be wrong in any way
        return None


def _alike(identity: Identity, index: Index) -> bool:
    return (identity.format, identity.facts, identity.arrays) == (index.format, index.facts, index.arrays)


def _metadata(bank: Identity | None) -> list[str]:
    """Zarr's own files."""
    return ["zarr.json", *(f"{name}/zarr.json" for name in bank.arrays)] if bank else []


def _files(bank: Identity, shard: int) -> list[str]:
    """Record and files of a shard, below the bank."""
    files = [bank.facts.file(Path(), name, shard) for name in bank.arrays]
    return [file.as_posix() for file in (record_path(Path(), shard), *files)]
