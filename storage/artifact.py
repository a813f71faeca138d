"""An artifact: a published directory and its manifest: identity, provenance and files."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from storage.atomic import sha256_file
from storage.checksummed_json import json_digest
from storage.errors import DamageError

MANIFEST = "artifact.json"
SCHEMA = 1


class NewerFormat(DamageError):
    """A newer flowctl wrote this artifact. This one can neither use nor replace it."""


class FileRecord(BaseModel):
    """One payload file: its path below the artifact, its size in bytes and its digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _stays_below(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
            raise ValueError("path of a file must lie below its artifact")
        return path


class Provenance(BaseModel):
    """The origin of the artifact. Nothing here is part of its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    created: str
    wall_seconds: float
    command: list[str]
    python: str
    platform: str
    packages: dict[str, str]
    git_revision: str | None
    device: str
    threads: int
    resumed: int = Field(0, ge=0, description="how often the stage was resumed before it ended")

    @property
    def minute(self) -> str:
        """When it was created, in UTC: 2026-11-30 00:24."""
        return self.created[:16].replace("T", " ")


class Artifact(BaseModel):
    """The validated manifest of a published directory. `root` is that directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    stage: str
    stage_version: int
    name: str
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    config: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, Any]
    files: tuple[FileRecord, ...]
    provenance: Provenance
    _root: Path = PrivateAttr()

    @computed_field  # type: ignore[prop-decorator]  # pydantic's way
    @property
    def checksum(self) -> str:
        """SHA-256 of all the other fields, written with them: a flipped digit in a metric is still valid JSON."""
        return json_digest(self.model_dump(mode="json", exclude={"checksum"}))

    @model_validator(mode="wrap")
    @classmethod
    def _as_written(cls, facts: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse a manifest whose checksum does not hold. An artifact that is being made has none."""
        written = None
        if isinstance(facts, dict):
            facts = dict(facts)
            written = facts.pop("checksum", None)
        artifact = handler(facts)
        if written is not None and written != artifact.checksum:
            raise ValueError("its content does not have its checksum")
        return artifact

    @property
    def root(self) -> Path:
        return self._root

    def path(self, *parts: str) -> Path:
        """A payload file or folder of this artifact."""
        return self._root.joinpath(*parts)

    def digest(self, path: str) -> str:
        """The recorded SHA-256 of one payload file."""
        return next(record.sha256 for record in self.files if record.path == path)

    @classmethod
    def parse(cls, manifest: bytes, where: str, remedy: str) -> Artifact:
        """The artifact that a manifest describes. Its files are not looked at.

        Raises DamageError about `where` if it is not valid, NewerFormat if a newer version wrote it.
        """
        try:
            facts = json.loads(manifest)
            newer = _is_newer(facts)
            if not newer:
                return cls.model_validate(facts)
        except (ValueError, RecursionError) as error:
            raise DamageError(where, f"not a valid manifest: {_flaw(error)}", remedy) from None
        raise NewerFormat(
            where,
            f"written by a newer flowctl, in format {facts['schema_version']}; this one reads {SCHEMA}",
            "Use that version, or set FLOWCTL_HOME to another store",
        )

    @classmethod
    def read(cls, root: Path) -> Artifact:
        """Read and validate a manifest and check that each file is there with its size, and no link to elsewhere.

        Raises DamageError that names the manifest or the file that is not as recorded.
        """
        try:
            artifact = cls.parse((root / MANIFEST).read_bytes(), str(root / MANIFEST), REBUILD)
        except FileNotFoundError:
            raise DamageError(str(root), f"{MANIFEST} is missing", REBUILD) from None
        artifact._root = root
        inside = root.resolve()
        for folder in {(root / record.path).parent for record in artifact.files}:
            if not folder.resolve().is_relative_to(inside):
                raise DamageError(str(folder), "a link that leads out of the artifact", REBUILD)
        for record in artifact.files:
            file = root / record.path
            if file.is_symlink():
                raise DamageError(str(file), "a link instead of the file", REBUILD)
            size = file.stat().st_size if file.is_file() else None
            if size != record.size:
                flaw = "missing" if size is None else f"{size} bytes, recorded {record.size}"
                raise DamageError(str(file), flaw, REBUILD)
        return artifact

    def check_files(self) -> None:
        """Read every byte outside Zarr groups, whose readers check their own bytes.

        Raises DamageError that names the first file which is not as recorded.
        """
        for record in self.files:
            if not any(part.endswith(".zarr") for part in PurePosixPath(record.path).parts[:-1]) and (
                sha256_file(self.path(record.path)) != record.sha256
            ):
                raise DamageError(
                    str(self.path(record.path)),
                    "its bytes are not those written (SHA-256)",
                    f"Rebuild it: `flowctl verify --repair`, or run with --force {self.stage}",
                )


def _is_newer(facts: Any) -> bool:
    """Whether a later version wrote this, with a checksum as all have: a flipped digit of the version is damage."""
    if not isinstance(facts, dict) or not isinstance(facts.get("schema_version"), int):
        return False
    rest = {name: value for name, value in facts.items() if name != "checksum"}
    return facts["schema_version"] > SCHEMA and facts.get("checksum") in (None, json_digest(rest))


def _flaw(error: Exception) -> str:
    """The first thing that is wrong, in plain words and on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        return f"{where}: {message[0].lower()}{message[1:]}" if where else message
    return "nested too deep" if isinstance(error, RecursionError) else f"not JSON: {error}"


REBUILD = "Rebuild it: run its recipe, or `flowctl verify --repair`"


def record_files(root: Path) -> tuple[FileRecord, ...]:
    """Sizes and digests of all files below `root`, in order of path."""
    files = sorted(file for file in root.rglob("*") if file.is_file() and file.name != MANIFEST)
    return tuple(
        FileRecord(path=file.relative_to(root).as_posix(), size=file.stat().st_size, sha256=sha256_file(file))
        for file in files
    )
