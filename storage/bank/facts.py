"""A bank's description of itself, and the paths of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.arrays import shard_file
from storage.checksummed_json import is_intact, with_checksum
from storage.errors import DamageError

FORMAT: Final = 1
ARRAYS = ("z", "x", "labels")
FACTS, INDEX, COMPLETE = "facts.json", "bank.json", "complete"
MANTISSA = {"float32": 23, "float16": 10}  # bits that the type itself holds
REMEDY = "Rebuild the damaged part: `flowctl verify --repair`; or remove the bank, and the next run writes it."


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shard(NamedTuple):
    """Flat indices start to stop - 1 of the bank: one file of each array, written by one process."""

    index: int  # type: ignore[assignment]  # tuple.index is not used
    start: int
    stop: int


class BankFacts(_Model):
    """Flat index i = draw * rows + row addresses the pair of one noise draw and one image."""

    kind: Literal["encoded", "generated"] = Field(description="z from images, or x from z by a student")
    rows: int = Field(gt=0, description="images, or seeds of them")
    draws: int = Field(gt=0, description="pairs for each row")
    shape: tuple[int, int, int] = Field(description="(C, H, W) of one image")
    dtype: Literal["float32", "float16"] = Field(description="of z and x")
    mantissa_bits: int | None = Field(
        None, gt=0, description="mantissa bits that z and x are rounded to before compression"
    )
    shard: int = Field(gt=0, description="flat indices in one file")
    seed: int = Field(ge=0, lt=2**64, description="of the noise added to images, or of z")
    noise_std: float | None = Field(
        None, ge=0, description="eta: standard deviation of the noise added to images before encoding"
    )
    sigma_f: float | None = Field(None, gt=0, description="divisor of the teacher's output")
    whitened: bool = Field(False, description="within each class, after that division")
    producer: str = Field(min_length=1, description="fingerprint of the teacher or student")
    solver: str | None = Field(None, description="of a student's ODE: solver, grid, steps, guidance")
    flips: bool = Field(False, description="mirrored images have rows too")

    @model_validator(mode="after")
    def _rounding_rounds(self) -> BankFacts:
        if self.mantissa_bits is not None and self.mantissa_bits >= MANTISSA[self.dtype]:
            raise ValueError(
                f"mantissa_bits must be below the {MANTISSA[self.dtype]} of {self.dtype}: set fewer, or leave it out"
            )
        return self

    @property
    def pairs(self) -> int:
        """M = draws * rows."""
        return self.rows * self.draws

    @property
    def shards(self) -> list[Shard]:
        """All shards in order; the last may be shorter."""
        starts = range(0, self.pairs, self.shard)
        return [Shard(i, start, min(start + self.shard, self.pairs)) for i, start in enumerate(starts)]

    def array_shape(self, array: str, pairs: int) -> tuple[int, ...]:
        return (pairs,) if array == "labels" else (pairs, *self.shape)

    def array_dtype(self, array: str) -> str:
        return "int64" if array == "labels" else self.dtype

    def file(self, root: Path, array: str, shard: int) -> Path:
        return shard_file(root, array, shard, 1 if array == "labels" else 4)


class FileFact(_Model):
    size: int
    checksums: str  # the SHA-256 of those of its chunks


class ShardRecord(_Model):
    """Content of complete/<shard>.json: these files were on the disk, with these bytes, before this was written."""

    start: int
    stop: int
    files: dict[str, FileFact]  # by array


class Identity(_Model):
    """Content of facts.json."""

    format: Literal[1] = FORMAT
    facts: BankFacts
    arrays: tuple[str, ...]
    checksum: str | None = None  # of all else in the file; None until it is written

    def content(self, **options: Any) -> dict[str, Any]:
        """The file's content with its checksum, dumped with pydantic's `options`."""
        return with_checksum(self.model_dump(mode="json", exclude={"checksum"}, **options))


class Index(Identity):
    """Content of bank.json."""

    metadata: dict[str, str]  # SHA-256 of Zarr's own zarr.json files, which hold no checksum
    shards: tuple[ShardRecord, ...]


_Read = TypeVar("_Read", bound=_Model)


def read_json(path: Path, model: type[_Read]) -> _Read:
    """The validated content of one of our JSON files, held against the checksum of an Identity. Raises DamageError."""
    try:
        data = path.read_bytes()
        read = model.model_validate_json(data)
        # Of the file's own words, not of ours: a field that a later version adds changes no checksum of before.
        if isinstance(read, Identity) and not is_intact(json.loads(data)):
            raise ValueError("it does not have its checksum")
        return read
    except (OSError, ValueError) as error:  # of which pydantic's is one
        raise DamageError(str(path), str(error).splitlines()[0], REMEDY) from error


def readable(path: Path, model: type[_Read]) -> _Read | None:
    """As `read_json`; None if the file is missing or is not one."""
    try:
        return read_json(path, model)
    except DamageError:
        return None


def facts_of(bank: Path) -> BankFacts | None:
    """The facts that a bank, finished or not, was begun with; None where there is none, or none to be read."""
    identity = readable(bank / FACTS, Identity)
    return identity.facts if identity else None


def record_path(root: Path, shard: int) -> Path:
    return root / COMPLETE / f"{shard:06d}.json"
