"""Zarr v3 arrays of image sets: a file for each run of rows (a shard), all its bytes under a checksum.

Those of banks are in `storage.bank.layout`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zarr

CHUNK_ROWS = 64  # rows decoded at once; fewer cost time (about 0.25 ms a chunk), more are read in vain


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, shard: int, fill_value: Any, zstd: bool
) -> zarr.Array:
    """An empty array `name` of `shape` (rows, ...) in `group` or in groups below it, a file for every `shard` rows.

    A missing file reads as `fill_value`, so choose one that cannot pass for data where the type has one.
    """
    from zarr.codecs import Crc32cCodec, ZstdCodec

    *parents, name = name.split("/")
    for parent in parents:  # Zarr would create them by hard links, which some file systems lack
        group = group.require_group(parent)
    row = shape[1:]
    sharded = bool(row)  # a file of numbers, one to a row, is small enough to be decoded whole
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        shards=(shard, *row) if sharded else None,
        chunks=(_chunk_rows(shard) if sharded else shard, *row),
        compressors=[ZstdCodec(level=3), Crc32cCodec()] if zstd else [Crc32cCodec()],
        filters=None,
        fill_value=fill_value,
        # One file to a shard, in one directory to an array: a single fsync makes a new name durable.
        chunk_key_encoding={"name": "default", "separator": "."},
        # Otherwise rows that all equal fill_value (labels of class 0) leave no file and look like lost ones.
        config={"write_empty_chunks": True},
    )


def shard_file(root: Path, array: str, shard: int, dims: int) -> Path:
    """Where shard number `shard` of an array of `dims` dimensions lies."""
    return root / array / ".".join(["c", str(shard), *["0"] * (dims - 1)])


def _chunk_rows(shard: int) -> int:
    return max(rows for rows in range(1, min(shard, CHUNK_ROWS) + 1) if shard % rows == 0)
