"""One file to object storage or from it, every byte of it held against the SHA-256 that the manifest records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storage.artifact import FileRecord
from storage.atomic import replacing, sha256_file
from storage.errors import DamageError
from storage.remote._errors import asking

if TYPE_CHECKING:
    from obstore.store import S3Store

PART = 16 * 2**20  # bytes in one request: a larger file goes as a multipart upload, and comes in ranges
AT_ONCE = 2  # parts of one file on their way
DIFFERS = "its bytes are not those recorded (SHA-256)"

Moment = Callable[[int], None]  # called with the number of further bytes; may raise to stop


def send(store: S3Store, key: str, where: str, file: Path, record: FileRecord, moment: Moment) -> None:
    """Put a local file at `key`, which appears whole or not at all. `where` is its URL, for messages.

    Raises DamageError if the file's bytes are not those recorded, and then nothing appears; RemoteError.
    """
    import obstore

    if record.size > PART:
        with open(file, "rb") as stream, asking(where):
            obstore.put(store, key, _parts(stream, file, record, moment), chunk_size=PART, max_concurrency=AT_ONCE)
        return
    data = file.read_bytes()
    _require_intact(file, len(data), hashlib.sha256(data).hexdigest(), record)
    with asking(where):
        obstore.put(store, key, data)
    moment(len(data))


def fetch(store: S3Store, key: str, where: str, file: Path, record: FileRecord, moment: Moment) -> None:
    """Download the object at `key` into `file`, unless the file exists with the same bytes.

    Raises DamageError if the object is missing or differs from the record, and then no file appears; RemoteError.
    """
    if file.is_file() and file.stat().st_size == record.size and sha256_file(file) == record.sha256:
        moment(record.size)
        return
    with replacing(file) as aside, open(aside, "wb") as stream:
        require(store, key, where, record, lambda part: moment(stream.write(part)))


def require(store: S3Store, key: str, where: str, record: FileRecord, take: Callable[[bytes], object]) -> None:
    """Hand the object's bytes to `take`, part after part. Raises DamageError, at the latest at its end; RemoteError."""
    import obstore

    digest = hashlib.sha256()
    for start in range(0, record.size, PART):
        length = min(PART, record.size - start)
        try:
            with asking(where):
                part = obstore.get_range(store, key, start=start, length=length).to_bytes()
        except FileNotFoundError:
            raise DamageError(where, "is missing", REPAIR) from None
        if len(part) != length:
            raise DamageError(where, f"{start + len(part)} bytes, recorded {record.size}", REPAIR)
        digest.update(part)
        take(part)
    if digest.hexdigest() != record.sha256:
        raise DamageError(where, DIFFERS, REPAIR)


REPAIR = (
    "`flowctl verify --remote --repair` replaces it from this store, or takes the artifact out, to be rebuilt "
    "or sent again by a machine that has it"
)


def _parts(stream, file: Path, record: FileRecord, moment: Moment) -> Iterator[bytes]:
    """The file in parts. Damage is raised before the last part is consumed, which aborts the upload."""
    digest, size = hashlib.sha256(), 0
    while part := stream.read(PART):
        digest.update(part)
        size += len(part)
        yield part
        moment(len(part))
    _require_intact(file, size, digest.hexdigest(), record)


def _require_intact(file: Path, size: int, digest: str, record: FileRecord) -> None:
    if (size, digest) != (record.size, record.sha256):
        raise DamageError(str(file), DIFFERS, "Rebuild it: `flowctl verify --repair`")
