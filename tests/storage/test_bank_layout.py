"""The files are plain Zarr v3: Zarr reads what we write and we read what Zarr writes, byte for byte the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.bank import Bank, BankFacts, BankWriter, layout
from storage.bank.reopen import flaws
from storage.errors import DamageError, InputError

FACTS = BankFacts(
    kind="generated", rows=250, draws=1, shape=(3, 4, 4), dtype="float32", shard=60, seed=0, producer="0123abcd"
)
ARRAYS = ("z", "x", "labels")
TYPES = [("float32", None), ("float16", None), ("float32", 8), ("float16", 6)]


def made(path: Path, monkeypatch, **changes) -> tuple[Bank, dict[str, np.ndarray]]:
    monkeypatch.setattr(layout, "CHUNK_BYTES", 20 * 192)  # 20 rows of float32, 30 of float16
    facts = BankFacts(**(FACTS.model_dump() | changes))
    rng = np.random.default_rng(0)
    z = rng.standard_normal((facts.pairs, *facts.shape), dtype=np.float32)
    values = {"z": z, "x": np.tanh(z), "labels": rng.integers(0, 10, facts.pairs)}
    writer = BankWriter(path, facts, ARRAYS)
    for index, start, stop in writer.shards:
        writer.write(index, **{name: rows[start:stop] for name, rows in values.items()})
    writer.finish()
    return Bank.open(path), values


@pytest.mark.parametrize(("dtype", "bits"), TYPES)
def test_zarr_reads_what_we_write(tmp_path, monkeypatch, dtype, bits):
    bank, values = made(tmp_path / "bank", monkeypatch, dtype=dtype, mantissa_bits=bits)
    loaded, group = bank.load(), zarr.open_group(str(bank.path), mode="r")
    for name in ARRAYS:
        array = group[name]
        assert array.metadata.zarr_format == 3 and array.shards[0] == 60
        assert array.chunks[0] == (20 if dtype == "float32" else 30) == bank.chunk
        np.testing.assert_array_equal(array[:], loaded[name][0])
        np.testing.assert_array_equal(array[55:65], loaded[name][0, 55:65])
    np.testing.assert_array_equal(group["labels"][:], values["labels"])
    if bits is None:
        np.testing.assert_array_equal(group["z"][:], values["z"].astype(dtype))


@pytest.mark.parametrize(("dtype", "bits"), TYPES)
def test_we_read_what_zarr_writes(tmp_path, monkeypatch, dtype, bits):
    """And it writes the same bytes, padding of the last chunk and index included."""
    bank, _ = made(tmp_path / "bank", monkeypatch, dtype=dtype, mantissa_bits=bits)
    before, loaded = {f: f.read_bytes() for f in bank.path.glob("*/c.*")}, bank.load()
    assert len(before) == 15
    for file in before:
        file.unlink()
    for name in ARRAYS:
        zarr.open_array(str(bank.path / name), mode="r+")[:] = loaded[name][0]
    assert {f: f.read_bytes() for f in before} == before
    np.testing.assert_array_equal(bank.load()["z"], loaded["z"])


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float32", 10), ("float32", 8), ("float32", 6), ("float16", 8), ("float16", 6)]
)
def test_rounding_errs_by_half_a_unit_of_the_last_bit(tmp_path, monkeypatch, dtype, bits):
    bank, values = made(tmp_path / "bank", monkeypatch, dtype=dtype, mantissa_bits=bits)
    given, kept = values["z"].astype(dtype).astype(np.float64), bank.load()["z"][0].astype(np.float64)
    normal = np.abs(given) > 2.0**-13
    relative = np.abs(kept - given)[normal] / np.abs(given[normal])
    assert 0.5 * 2.0 ** -(bits + 1) < relative.max() <= 2.0 ** -(bits + 1)
    assert np.unique(np.frexp(kept)[0] * 2 ** (bits + 1) % 1).tolist() == [0]
    np.testing.assert_array_equal(kept, np.concatenate([bank.rows([i])["z"] for i in range(250)]))


def test_fewer_bits_take_less_room(tmp_path, monkeypatch):
    sizes = []
    for bits in (None, 8, 4):
        path = tmp_path / str(bits)
        made(path, monkeypatch, mantissa_bits=bits, shard=250)
        sizes.append((path / "z/c.0.0.0.0").stat().st_size)
    assert sizes[0] > 250 * 192 and sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.75 * sizes[1]


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 23), ("float16", 10), ("float32", 0)])
def test_rounding_must_round(dtype, bits):
    with pytest.raises(ValueError, match="mantissa"):
        BankFacts(**(FACTS.model_dump() | {"dtype": dtype, "mantissa_bits": bits}))


def test_rounding_may_not_leave_the_type(tmp_path):
    from storage.errors import StageFailed

    facts = FACTS.model_copy(update={"dtype": "float16", "mantissa_bits": 2, "shard": 250})
    z = np.zeros((250, 3, 4, 4), np.float32)
    z[7, 0, 0, 0] = 65000  # finite in float16; the next number of two mantissa bits is not
    writer = BankWriter(tmp_path / "bank", facts)
    with pytest.raises(StageFailed, match="1 of rows 0 to 249, first 7"):
        writer.write(0, z=z)
    z[7] = np.array(0x7FFFFFFF, np.uint32).view(np.float32)  # a NaN whose bits, rounded up, are those of -0
    with pytest.raises(StageFailed, match="1 of rows 0 to 249, first 7"):
        writer.write(0, z=z)
    assert not list(writer.path.rglob("*.partial")) and len(writer.missing()) == 1


def test_rounding_is_part_of_what_a_bank_is(tmp_path, monkeypatch):
    bank, _ = made(tmp_path / "bank", monkeypatch)
    with pytest.raises(InputError, match="mantissa_bits: None there, 8 now"):
        BankWriter(bank.path, FACTS.model_copy(update={"mantissa_bits": 8}), ARRAYS)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", None), ("float32", 8)])
def test_every_byte_of_a_file_is_under_a_checksum(tmp_path, monkeypatch, dtype, bits):
    bank, _ = made(tmp_path / "bank", monkeypatch, dtype=dtype, mantissa_bits=bits)
    file = bank.path / "z/c.4.0.0.0"  # short: its last chunk is padded, and one is absent
    data = file.read_bytes()
    for place in [*range(0, len(data), 97), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 4
        file.write_bytes(changed)
        assert [(p.shard, p.file) for p in flaws(bank.path)] == [(4, "z/c.4.0.0.0")]
        with pytest.raises(DamageError, match="shard 4"):
            Bank.open(bank.path).load()
    file.write_bytes(data)
    assert flaws(bank.path) == []


def test_a_sound_file_in_anothers_place_is_found(tmp_path, monkeypatch):
    bank, _ = made(tmp_path / "bank", monkeypatch)
    (bank.path / "z/c.1.0.0.0").write_bytes((bank.path / "z/c.2.0.0.0").read_bytes())
    assert [(p.shard, p.file, p.flaw) for p in flaws(bank.path)] == [
        (1, "z/c.1.0.0.0", "its bytes are not those written")
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"), [("crc32c", "gzip"), ("sharding_indexed", "bytes"), ("bitshuffle", "shuffle")]
)
def test_layouts_that_are_not_ours_are_refused(tmp_path, monkeypatch, ours, theirs):
    bank, _ = made(tmp_path / "bank", monkeypatch, **({"mantissa_bits": 10} if ours == "bitshuffle" else {}))
    file = bank.path / "z/zarr.json"
    assert ours in file.read_text()
    file.write_text(file.read_text().replace(f'"{ours}"', f'"{theirs}"'))
    with pytest.raises(ValueError, match=theirs):
        layout.Layout.read(bank.path / "z")


def test_chunks_are_about_a_mebibyte():
    assert layout.chunk_rows(4096, 3 * 32 * 32 * 4) == 64
    assert layout.chunk_rows(4096, 3 * 32 * 32 * 2) == 128
    assert layout.chunk_rows(4096, 256) == 4096
    assert layout.chunk_rows(4099, 12288) == 4099, "a prime: the file as a whole is nearer than one row"
    assert layout.chunk_rows(10, 2**25) == 1
    for shard in (1, 6, 100, 4096):
        assert shard % layout.chunk_rows(shard, 1000) == 0


def large(path: Path) -> BankWriter:
    """A shard of chunks that Blosc would share out to its threads."""
    facts = FACTS.model_copy(update={"rows": 128, "shape": (3, 32, 32), "shard": 128, "mantissa_bits": 8})
    writer = BankWriter(path, facts)
    writer.write(0, z=np.random.default_rng(0).standard_normal((128, 3, 32, 32), dtype=np.float32))
    return writer


def test_the_same_bytes_from_any_process(tmp_path):
    """Blosc orders its blocks as its threads end, where it uses threads."""
    expected = (large(tmp_path / "0").path / "z/c.0.0.0.0").read_bytes()
    code = "import sys, pathlib; from tests.storage.test_bank_layout import large; large(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "1")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "1/z/c.0.0.0.0").read_bytes() == expected
