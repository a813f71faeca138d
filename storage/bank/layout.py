"""How an array of a bank lies in its files: plain Zarr v3, as its zarr.json says, so that any Zarr reads it.

A file is one Zarr shard: chunks one after another, each followed by its CRC-32C, and at the end an index of offsets and
lengths and a CRC-32C of it (Zarr v3 specification, codec "sharding_indexed"). We encode and decode these bytes
here, for Zarr's own pipeline copies each chunk several times and sends it through an event loop: at about 1 GB/s it is
a tenth as fast as a memory map, and slower than some disks.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from storage.bank.facts import REMEDY, Identity
from storage.errors import reading

if TYPE_CHECKING:
    import zarr

CHUNK_BYTES = 2**20  # about: large enough that its own cost vanishes, small enough to stay in a core's cache
CRC_BYTES = 4
DIMENSIONS = ("pair", "channel", "height", "width")
_SCATTERED = 1000  # rows; systems read into up to 1024 places at once
_ABSENT = 2**64 - 1  # both numbers of a chunk that lies beyond the array's end


def chunk_rows(shard: int, row_bytes: int) -> int:
    """Rows of a chunk: of the divisors of `shard` the one that comes nearest to CHUNK_BYTES."""
    small = [n for n in range(1, math.isqrt(shard) + 1) if shard % n == 0]
    return min(small + [shard // n for n in small], key=lambda n: abs(math.log(n * row_bytes / CHUNK_BYTES)))


def create_arrays(path: Path, identity: Identity) -> None:
    """Write the zarr.json files that every bank of these facts begins with into the new directory `path`."""
    import zarr

    facts, root = identity.facts, zarr.create_group(str(path))
    # Labels lie in chunks of as many rows, so that a part of all arrays is read alike.
    chunk = chunk_rows(facts.shard, math.prod(facts.shape) * np.dtype(facts.dtype).itemsize)
    for name in identity.arrays:
        rounded = name != "labels" and facts.mantissa_bits is not None
        shape = facts.array_shape(name, facts.pairs)
        _create_array(root, name, shape, facts.array_dtype(name), facts.shard, chunk, compressed=rounded)
    _consolidate(path, identity.arrays)


def _consolidate(path: Path, arrays: Sequence[str]) -> None:
    """Repeat the metadata of the arrays in that of the group, as Zarr does on request.

    Readers then need not list the directory, where our own files make them warn.
    """
    metadata = {name: json.loads((path / name / "zarr.json").read_bytes()) for name in arrays}
    group = json.loads((path / "zarr.json").read_bytes())
    group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    (path / "zarr.json").write_text(json.dumps(group, indent=2))


def _create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, shard: int, chunk: int, compressed: bool
) -> None:
    """Write the zarr.json of an array `name` of `shape` (rows, ...): a file for `shard` rows, in chunks of `chunk`.

    Noise does not compress, so only `compressed` where mantissa bits were cleared: bits of equal weight are put side by
    side, and LZ4 then drops the cleared ones. Zstd would save four per cent more, at a third of the speed.
    """
    from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

    blosc = BloscCodec(typesize=np.dtype(dtype).itemsize, cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle)
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        shards=(shard, *shape[1:]),
        chunks=(chunk, *shape[1:]),
        compressors=[blosc, Crc32cCodec()] if compressed else [Crc32cCodec()],
        filters=None,
        # Other readers see this value in a lost shard; no bank contains it.
        fill_value=float("nan") if np.dtype(dtype).kind == "f" else -1,
        # One file to a shard, in one directory to an array: a single fsync makes a new name durable.
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=DIMENSIONS[: len(shape)],  # xarray reads these
    )


@dataclass(frozen=True)
class Layout:
    """The content of a zarr.json, and its codecs.

    `row` is the shape of one row; a file holds `shard` rows in chunks of `chunk`.
    """

    dtype: np.dtype
    row: tuple[int, ...]
    shard: int
    chunk: int
    fill: float
    compressor: Any  # a numcodecs codec, or None

    @classmethod
    def read(cls, array: Path) -> Layout:
        """The layout of the array in the directory `array`. Raises ValueError or KeyError for one that is not ours."""
        facts = json.loads((array / "zarr.json").read_bytes())
        shard, sharding = facts["chunk_grid"]["configuration"]["chunk_shape"][0], facts["codecs"][0]
        if sharding["name"] != "sharding_indexed":
            raise ValueError(f"arrays of a bank are sharded, not {sharding['name']}")
        chunk, codecs = sharding["configuration"]["chunk_shape"][0], sharding["configuration"]["codecs"]
        names = [codec["name"] for codec in codecs]
        if names[0] != "bytes" or names[-1] != "crc32c" or len(names) > 3:
            raise ValueError(f"chunks of a bank are bytes with a crc32c, not {names}")
        compressor = _compressor(codecs[1]) if len(names) == 3 else None
        fill = -1 if facts["data_type"] == "int64" else math.nan
        dtype = np.dtype(facts["data_type"]).newbyteorder("<")
        return cls(dtype, tuple(facts["shape"][1:]), shard, chunk, fill, compressor)

    def encode(self, rows: np.ndarray) -> tuple[np.ndarray | bytes, bytes]:
        """A chunk of contiguous `rows` (n, ...) of our type as its bytes and their checksum; n < `chunk` is padded."""
        if len(rows) < self.chunk:
            padding = np.full((self.chunk - len(rows), *self.row), self.fill, self.dtype)
            rows = np.concatenate([rows, padding])
        data = as_bytes(rows) if self.compressor is None else self.compressor.encode(rows)
        return data, _crc(data)

    def index(self, chunks: list[int]) -> bytes:
        """The end of a file whose encoded chunks, checksums included, have these lengths in bytes."""
        index = np.full((self.shard // self.chunk, 2), _ABSENT, "<u8")
        index[: len(chunks), 0] = np.cumsum([0, *chunks[:-1]])
        index[: len(chunks), 1] = chunks
        return index.tobytes() + _crc(index.tobytes())

    def read_index(self, file: int, size: int) -> list[tuple[int, int]]:
        """Offset and length of each chunk of a file of `size` bytes, open as descriptor `file`. Raises ValueError."""
        count = self.shard // self.chunk
        end = os.pread(file, 16 * count + CRC_BYTES, max(size - 16 * count - CRC_BYTES, 0))
        if len(end) != 16 * count + CRC_BYTES or _crc(end[:-CRC_BYTES]) != end[-CRC_BYTES:]:
            raise ValueError("the checksum of its index does not match")
        pairs = np.frombuffer(end[:-CRC_BYTES], "<u8").reshape(count, 2).tolist()
        return [(offset, length) for offset, length in pairs if offset != _ABSENT]

    def read_chunk(self, file: int, offset: int, length: int, out: np.ndarray, check: bool) -> bytes:
        """Decode a chunk of an open file into `out` (`chunk`, ...), contiguous, and give its checksum.

        Raises ValueError where it ends early or, if asked to `check`, the checksum does not hold.
        """
        target, checksum = as_bytes(out), bytearray(CRC_BYTES)
        data = target if self.compressor is None else np.empty(length - CRC_BYTES, np.uint8)
        read = os.preadv(file, [data, checksum], offset)  # type: ignore[list-item]  # arrays are buffers
        if not read == length == len(data) + CRC_BYTES or (check and _crc(data) != checksum):
            raise ValueError(f"the checksum of the chunk at byte {offset} does not match")
        if self.compressor is not None:
            self.compressor.decode(data, target)
        return bytes(checksum)

    @property
    def scatters(self) -> bool:
        """Whether a chunk has few and large rows, so that each row is read straight into its destination."""
        return bool(self.row) and self.chunk <= _SCATTERED

    def read_rows(self, file: int, offset: int, first: int, rows: list[memoryview]) -> None:
        """Read the bytes of rows from number `first` of a chunk on, each to where it belongs. Not of compressed ones.

        Raises ValueError for a file that ends early.
        """
        size = len(rows[0])
        if os.preadv(file, rows, offset + first * size) != len(rows) * size:
            raise ValueError(f"the chunk at byte {offset} ends early")


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, not copied."""
    return rows.reshape(-1).view(np.uint8)


def _crc(data: Any) -> bytes:
    return google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def _compressor(codec: dict[str, Any]) -> Any:
    """The numcodecs codec that a Zarr codec names."""
    from numcodecs import blosc

    name, facts = codec["name"], codec["configuration"]
    if (name, facts.get("shuffle")) != ("blosc", "bitshuffle"):
        raise ValueError(f"chunks of a bank are compressed by blosc with bitshuffle, not {codec}")
    return blosc.Blosc(facts["cname"], facts["clevel"], blosc.BITSHUFFLE, facts["blocksize"])


def layouts(bank: Path, arrays: Sequence[str]) -> dict[str, Layout]:
    """By array, the layout in the bank's directory. Raises DamageError where one is not ours."""
    with reading(f"bank {bank}, zarr.json", REMEDY):
        return {name: Layout.read(bank / name) for name in arrays}
