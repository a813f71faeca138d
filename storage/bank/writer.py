"""Writing a bank so that it can be killed at any moment: a shard is recorded as complete, or it does not count."""

from __future__ import annotations

import os
import shutil
import uuid
from functools import cached_property
from pathlib import Path

import numpy as np

from storage.arrays import create_array
from storage.atomic import fsync_path, fsync_tree, sha256_file, write_json
from storage.bank.facts import (
    ARRAYS,
    COMPLETE,
    FACTS,
    INDEX,
    BankFacts,
    FileFact,
    Identity,
    Index,
    Shard,
    ShardRecord,
    read_json,
    record_path,
)
from storage.errors import DamageError, InputError, StageFailed


class BankWriter:
    """Creates the bank `path`, or continues it. Processes may share a bank, each writing shards of its own.

    The bytes follow from facts and values alone, whatever the order of shards and the number of processes. Raises
    InputError where another bank, of other facts or arrays, was begun at `path`.
    """

    def __init__(self, path: Path, facts: BankFacts, arrays: tuple[str, ...] = ("z",)) -> None:
        if "z" not in arrays or len(set(arrays)) < len(arrays) or not set(arrays) <= set(ARRAYS):
            raise ValueError(f"a bank has z and may have x and labels, got {arrays}")
        self.path = Path(path)
        self.facts = facts
        self.arrays = tuple(name for name in ARRAYS if name in arrays)
        identity = Identity(facts=facts, arrays=self.arrays)
        if not (self.path / FACTS).is_file():
            self._create(identity)
        found = read_json(self.path / FACTS, Identity)
        if found != identity:
            theirs, ours = ({**i.facts.model_dump(), "arrays": i.arrays} for i in (found, identity))
            changed = ", ".join(f"{k}: {theirs[k]!r} there, {ours[k]!r} now" for k in ours if theirs[k] != ours[k])
            remedy = "Use the old settings, or remove that directory to begin a new bank."
            raise InputError(f"the bank {self.path} is continued with the facts it was begun with", changed, remedy)

    @property
    def shards(self) -> list[Shard]:
        """All shards of the bank, complete or not."""
        return self.facts.shards

    def missing(self) -> list[Shard]:
        """Shards that are still to be written."""
        return [shard for shard in self.shards if self._record(shard) is None]

    def write(self, index: int, **values: np.ndarray) -> None:
        """Write shard `index`: for each array its rows start to stop - 1. On return they are on the disk and recorded.

        Raises ValueError for a wrong array or shape, StageFailed for values that are not finite in the bank's type.
        """
        shard = self.shards[index]
        if set(values) != set(self.arrays):
            raise ValueError(f"this bank holds {self.arrays}, got {tuple(values)}")
        ready = {name: self._convert(name, values[name], shard) for name in self.arrays}
        # Should the shard be written twice: no record of old bytes.
        record_path(self.path, index).unlink(missing_ok=True)
        files = {}
        for name, rows in ready.items():
            file = self.facts.file(self.path, name, index)
            file.unlink(missing_ok=True)  # else Zarr would read a torn last shard in order to fill in its rows
            self._zarr[name][shard.start : shard.stop] = rows
            fsync_path(file)  # Zarr renames without it
            fsync_path(file.parent)
            files[name] = FileFact(size=file.stat().st_size, sha256=sha256_file(file))
        record = ShardRecord(start=shard.start, stop=shard.stop, files=files)
        write_json(record_path(self.path, index), record.model_dump())

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
        metadata = {f.relative_to(self.path).as_posix(): sha256_file(f) for f in sorted(self.path.rglob("zarr.json"))}
        index = Index(facts=self.facts, arrays=self.arrays, metadata=metadata, shards=tuple(r for r in records if r))
        write_json(self.path / INDEX, index.model_dump())

    @cached_property
    def _zarr(self) -> dict:
        import zarr

        return {name: zarr.open_array(str(self.path / name), mode="r+") for name in self.arrays}

    def _create(self, identity: Identity) -> None:
        """The empty bank appears under its name in one step, so processes may do this at once: the first one wins."""
        import zarr

        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.partial")
        facts = identity.facts
        try:
            root = zarr.create_group(str(aside))
            for name in identity.arrays:
                # What a lost shard reads as can be no value of a bank: see _convert.
                fill = -1 if name == "labels" else float("nan")
                shape = facts.array_shape(name, facts.pairs)
                create_array(root, name, shape, facts.array_dtype(name), facts.shard, fill, zstd=name == "labels")
            (aside / COMPLETE).mkdir()
            write_json(aside / FACTS, identity.model_dump())
            fsync_tree(aside)
            os.rename(aside, self.path)
            fsync_path(self.path.parent)
        except OSError:
            # The rename alone decides who begins the bank: to look before it would race with another process.
            if (self.path / FACTS).is_file():
                return
            if self.path.is_dir() and any(self.path.iterdir()):
                remedy = "Choose another directory."
                raise InputError("a bank begins in an empty directory", str(self.path), remedy) from None
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _record(self, shard: Shard) -> ShardRecord | None:
        """The record of a complete shard whose files are still there; None if the shard is to be written."""
        path = record_path(self.path, shard.index)
        if not path.is_file():
            return None
        try:
            record = read_json(path, ShardRecord)
        except DamageError:
            return None
        fits = (record.start, record.stop, set(record.files)) == (shard.start, shard.stop, set(self.arrays))
        files = {name: self.facts.file(self.path, name, shard.index) for name in self.arrays}
        whole = fits and all(f.is_file() and f.stat().st_size == record.files[n].size for n, f in files.items())
        return record if whole else None

    def _convert(self, name: str, values: np.ndarray, shard: Shard) -> np.ndarray:
        values = np.asarray(values)
        expected = self.facts.array_shape(name, shard.stop - shard.start)
        if values.shape != expected:
            raise ValueError(f"{name} of shard {shard.index} has shape {expected}, got {values.shape}")
        if name == "labels":
            if values.dtype.kind not in "iu" or (values < 0).any():
                raise ValueError(f"labels are whole numbers from 0, got {values.dtype} from {values.min()}")
            return values.astype(np.int64)
        with np.errstate(over="ignore"):  # float16 ends at 65504; what lies beyond is found below
            values = values.astype(self.facts.dtype)
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(bad):
            where = f"{len(bad)} of rows {shard.start} to {shard.stop - 1}, first {shard.start + bad[0]}"
            remedy = "The network that produced them has diverged, or they exceed the bank's type."
            raise StageFailed(f"bank {self.path}: {name} is not finite in {self.facts.dtype} in {where}. {remedy}")
        return values
