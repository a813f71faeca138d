"""Writing a bank so that it can be killed at any moment: a shard is recorded as complete, or it does not count."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np

from storage.atomic import aside_of, folder_aside, fsync_path, fsync_tree, sha256_file, write_bytes, write_json
from storage.bank import shardfile
from storage.bank.facts import (
    ARRAYS,
    COMPLETE,
    FACTS,
    INDEX,
    MANTISSA,
    BankFacts,
    FileFact,
    Identity,
    Index,
    Shard,
    ShardRecord,
    read_json,
    readable,
    record_path,
)
from storage.bank.layout import Layout, create_arrays, layouts
from storage.checksummed_json import CHECKSUM
from storage.errors import DamageError, InputError, StageFailed

THREADS = 4  # that convert, round and compress chunks


class BankWriter:
    """Creates the bank `path`, or continues it. Processes may share a bank, each writing its own shards.

    The bytes follow from facts and values alone, whatever the order of shards and the number of processes. Raises
    InputError where another bank, of other facts or arrays, was begun at `path`, DamageError where none can tell which.
    """

    def __init__(self, path: Path, facts: BankFacts, arrays: tuple[str, ...] = ("z",)) -> None:
        if "z" not in arrays or len(set(arrays)) < len(arrays) or not set(arrays) <= set(ARRAYS):
            raise ValueError(f"arrays must be z and optionally x and labels, got {arrays}")
        self.path = Path(path)
        self.facts = facts
        self.arrays = tuple(name for name in ARRAYS if name in arrays)
        self._behind: set[Path] = set()  # the last record, not yet forced to the disk
        identity = Identity(facts=facts, arrays=self.arrays)
        begun = not (self.path / FACTS).is_file() and self._create(identity)
        recorded = self._begun_with(identity)
        if (recorded.facts, recorded.arrays) != (identity.facts, identity.arrays):
            old, new = ({**i.facts.model_dump(), "arrays": i.arrays} for i in (recorded, identity))
            changed = ", ".join(f"{k}: {old[k]!r} there, {new[k]!r} now" for k in new if old[k] != new[k])
            remedy = "Use the old settings, or remove that directory to begin a new bank."
            raise InputError(
                f"The bank {self.path} must be continued with the settings that it was begun with", changed, remedy
            )
        if not begun:
            self._restore_metadata(identity)

    @property
    def shards(self) -> list[Shard]:
        """All shards of the bank, complete or not."""
        return self.facts.shards

    def missing(self) -> list[Shard]:
        """Shards that are still to be written."""
        return [shard for shard in self.shards if self._record(shard) is None]

    def write(self, index: int, **values: np.ndarray) -> None:
        """Write shard `index`: for each array its rows start to stop - 1. On return they are on the disk, and recorded.

        A record follows its files, and is itself forced to the disk with the next shard. So a power cut may
        take or tear the last one, or names of the last files: then that shard does not count, and is written again.

        Raises ValueError for a wrong array or shape, StageFailed for values that are not finite in the bank's type.
        """
        shard = self.shards[index]
        if set(values) != set(self.arrays):
            raise ValueError(f"arrays must be {self.arrays}, got {tuple(values)}")
        asides: dict[Path, Path] = {}  # by the name that each will have
        files = {}
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                for name in self.arrays:
                    path = self.facts.file(self.path, name, index)
                    asides[path] = aside_of(path)
                    files[name] = self._write(asides[path], name, values[name], shard, pool)
                # Should the shard be written twice: no record of old bytes.
                record = record_path(self.path, index)
                record.unlink(missing_ok=True)
                for path, aside in asides.items():
                    os.replace(aside, path)
                # As few as will do: each costs more than a raw write's one where others use the disk too.
                for path in [*asides, *(self._behind - {record})]:
                    fsync_path(path)
            self._publish(record, ShardRecord(start=shard.start, stop=shard.stop, files=files))
        finally:
            for aside in asides.values():
                aside.unlink(missing_ok=True)

    def finish(self) -> None:
        """Declare the bank complete: write bank.json. Raises StageFailed if shards are missing."""
        records = [self._record(shard) for shard in self.shards]
        missing = [i for i, record in enumerate(records) if record is None]
        if missing:
            raise StageFailed(
                f"bank {self.path}: {len(missing)} of {len(records)} shards are missing, first {missing[0]}"
            )
        for leftover in self.path.glob("*/*.partial"):  # of writers that were killed
            leftover.unlink()
        for directory in (COMPLETE, *self.arrays):  # the names of all files
            fsync_path(self.path / directory)
        metadata = {f.relative_to(self.path).as_posix(): sha256_file(f) for f in sorted(self.path.rglob("zarr.json"))}
        index = Index(facts=self.facts, arrays=self.arrays, metadata=metadata, shards=tuple(r for r in records if r))
        write_json(self.path / INDEX, index.content(exclude_none=True))

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return layouts(self.path, self.arrays)

    def _create(self, identity: Identity) -> bool:
        """The empty bank appears under its name in one step, so processes may do this at once: whether this one won."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = aside_of(self.path)
        try:
            create_arrays(aside, identity)
            (aside / COMPLETE).mkdir()
            write_json(aside / FACTS, identity.content())
            fsync_tree(aside)
            os.rename(aside, self.path)
            fsync_path(self.path.parent)
            return True
        except OSError:
            # The rename alone decides who begins the bank: to look before it would race with another process.
            if (self.path / FACTS).is_file():
                return False
            if self.path.is_dir() and any(self.path.iterdir()):
                remedy = "Remove it, or choose another directory."
                raise InputError("A bank must begin in an empty directory", str(self.path), remedy) from None
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _begun_with(self, identity: Identity) -> Identity:
        """The content of facts.json; `identity` is written back if the file is damaged but has that checksum.

        Else raises DamageError: the divisor of the existing shards is lost.
        """
        file, ours = self.path / FACTS, identity.content()
        try:
            return read_json(file, Identity)
        except DamageError as damage:
            if isinstance(damage.__cause__, OSError) or ours[CHECKSUM].encode() not in file.read_bytes():
                raise
            write_json(file, ours)
            return read_json(file, Identity)

    def _restore_metadata(self, identity: Identity) -> None:
        """Write damaged Zarr metadata again: it has no checksum, but follows from the facts."""
        with folder_aside(self.path) as folder:
            create_arrays(Path(folder, "bank"), identity)
            for fresh in sorted(Path(folder, "bank").rglob("zarr.json")):
                file = self.path / fresh.relative_to(Path(folder, "bank"))
                if not file.is_file() or file.read_bytes() != fresh.read_bytes():
                    write_bytes(file, fresh.read_bytes())

    def _record(self, shard: Shard) -> ShardRecord | None:
        """The record of a complete shard whose files are still there; None if the shard is to be written."""
        record = readable(record_path(self.path, shard.index), ShardRecord)
        if record is None:
            return None
        fits = (record.start, record.stop, set(record.files)) == (shard.start, shard.stop, set(self.arrays))
        files = {name: self.facts.file(self.path, name, shard.index) for name in self.arrays}
        whole = fits and all(f.is_file() and f.stat().st_size == record.files[n].size for n, f in files.items())
        return record if whole else None

    def _publish(self, path: Path, record: ShardRecord) -> None:
        aside = aside_of(path)
        aside.write_text(record.model_dump_json(indent=2) + "\n")
        os.replace(aside, path)
        self._behind = {path}

    def _write(self, path: Path, name: str, values: np.ndarray, shard: Shard, pool: ThreadPoolExecutor) -> FileFact:
        """Write the file of an array, after checking shape and labels; each chunk is checked as it is written."""
        values = np.asarray(values)
        expected = self.facts.array_shape(name, shard.stop - shard.start)
        if values.shape != expected:
            raise ValueError(f"{name} of shard {shard.index} must have shape {expected}, got {values.shape}")
        if name == "labels" and (values.dtype.kind not in "iu" or (values < 0).any()):
            raise ValueError(f"labels must be integers >= 0, got {values.dtype} from {values.min()}")
        ready = self._whole_numbers if name == "labels" else self._numbers
        try:
            layout = self._layouts[name]
            work = values.dtype != layout.dtype or layout.compressor is not None
            size, checksums = shardfile.write(path, layout, values, ready, pool if work else None)
        except _NotFiniteError:
            bad = [start for start, row in enumerate(values, shard.start) if not self._holds(row)]
            where = f"{len(bad)} of rows {shard.start} to {shard.stop - 1}, first {bad[0]}"
            remedy = "The network that produced them has diverged, or they exceed the bank's type."
            fault = f"{name} is not finite in {self.facts.dtype} in {where}"
            raise StageFailed(f"bank {self.path}: {fault}. {remedy}") from None
        return FileFact(size=size, checksums=checksums)

    def _whole_numbers(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows, dtype=np.int64)

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """z or x of a chunk in the bank's type, rounded; raises _NotFiniteError."""
        with np.errstate(over="ignore"):  # float16 ends at 65504; values beyond become infinite, and are detected
            rows = np.ascontiguousarray(rows, dtype=self.facts.dtype)
        _require_finite(rows)
        if self.facts.mantissa_bits is not None:
            from numcodecs.bitround import BitRound

            rows = BitRound(self.facts.mantissa_bits).encode(rows).view(self.facts.dtype)
            _require_finite(rows)  # the largest numbers are rounded to infinity
        return rows

    def _holds(self, row: np.ndarray) -> bool:
        try:
            self._numbers(row)
        except _NotFiniteError:
            return False
        return True


def _require_finite(rows: np.ndarray) -> None:
    # By the exponent, whose bits are all set in infinities and NaN: ten times as fast as isfinite for float16.
    bits = rows.view(f"u{rows.itemsize}")
    exponent = bits.dtype.type(2 ** (8 * rows.itemsize - 1) - 2 ** MANTISSA[rows.dtype.name])
    if (bits & exponent).max() == exponent:
        raise _NotFiniteError


class _NotFiniteError(ValueError):
    """A chunk has values that the bank's type cannot hold."""
