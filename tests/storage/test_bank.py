"""The bank: same bytes whatever the order, the processes and the kills; no damaged or foreign pair is ever returned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray

from storage.bank import Bank, BankFacts, BankWriter, BatchReader
from storage.bank.reopen import flaws
from storage.errors import DamageError, InputError, StageFailed

ROOT = Path(__file__).parents[2]
FACTS = BankFacts(
    kind="encoded", rows=50, draws=5, shape=(1, 4, 4), dtype="float32", shard=64, seed=7, noise_std=0.2, sigma_f=1.5,
    producer="0123abcd",
)  # fmt: skip
ARRAYS = ("z", "x", "labels")


def values(facts: BankFacts, start: int, stop: int, arrays=ARRAYS) -> dict[str, np.ndarray]:
    """Rows that follow from their flat index, as a stage's would."""
    index = np.arange(start, stop)
    z = (index[:, None, None, None] + np.linspace(0, 0.5, 16).reshape(1, 4, 4)).astype(np.float32)
    every = {"z": z, "x": -z, "labels": index % facts.rows % 3}
    return {name: every[name] for name in arrays}


def write(path: Path, facts: BankFacts = FACTS, arrays=ARRAYS, order=slice(None), finish=True) -> Path:
    writer = BankWriter(path, facts, arrays)
    for shard in writer.missing()[order]:
        writer.write(shard.index, **values(facts, shard.start, shard.stop, arrays))
    if finish:
        writer.finish()
    return path


def content(root: Path) -> dict[str, bytes]:
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("pristine") / "bank")


@pytest.fixture
def copied(pristine, tmp_path) -> Path:
    for name, data in content(pristine).items():
        (tmp_path / "bank" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bank" / name).write_bytes(data)
    return tmp_path / "bank"


def test_facts():
    assert FACTS.pairs == 250
    assert [tuple(s) for s in FACTS.shards] == [(0, 0, 64), (1, 64, 128), (2, 128, 192), (3, 192, 250)]
    with pytest.raises(ValueError, match="frozen"):
        FACTS.rows = 3
    with pytest.raises(ValueError, match="extra"):
        BankFacts(**FACTS.model_dump(), colour="red")


@pytest.mark.parametrize(("dtype", "arrays"), [("float32", ARRAYS), ("float16", ("z",))])
def test_round_trip(tmp_path, dtype, arrays):
    facts = FACTS.model_copy(update={"dtype": dtype})
    bank = Bank.open(write(tmp_path / "bank", facts, arrays))
    expected = values(facts, 0, 250, arrays)
    assert bank.facts == facts and bank.arrays == arrays
    loaded = bank.load()
    assert loaded["z"].shape == (5, 50, 1, 4, 4) and loaded["z"].dtype == dtype
    indices = np.array([249, 0, 130, 130, 63, 64])
    for name in arrays:
        np.testing.assert_array_equal(
            loaded[name].reshape(expected[name].shape), expected[name].astype(loaded[name].dtype)
        )
        np.testing.assert_array_equal(bank.rows(indices)[name], loaded[name].reshape(expected[name].shape)[indices])
    np.testing.assert_array_equal(loaded["z"][3, 20], loaded["z"].reshape(250, 1, 4, 4)[3 * 50 + 20])
    assert flaws(bank.path) == []
    with pytest.raises(IndexError, match="0 to 249"):
        bank.rows([250])


def test_order_of_shards_and_continuation_leave_no_trace(pristine, tmp_path):
    write(tmp_path / "backwards", order=slice(None, None, -1))
    write(tmp_path / "continued", order=slice(2, 3), finish=False)
    assert [s.index for s in BankWriter(tmp_path / "continued", FACTS, ARRAYS).missing()] == [0, 1, 3]
    write(tmp_path / "continued")
    write(tmp_path / "continued")  # a complete bank is continued without effect
    for name in ("backwards", "continued"):
        assert content(tmp_path / name) == content(pristine)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backwards", "continued"]


WORKER = """
import sys
import warnings
from pathlib import Path
from tests.storage.test_bank import ARRAYS, FACTS, BankWriter, values
writer = BankWriter(Path(sys.argv[1]), FACTS, ARRAYS)
print("begun", flush=True)
for shard in writer.shards[int(sys.argv[2])::int(sys.argv[3])]:
    if shard in writer.missing():
        sys.stdin.readline()  # until it may go on
        print("shard", shard.index, flush=True)
        writer.write(shard.index, **values(FACTS, shard.start, shard.stop))
"""


def worker(path: Path, rank: int, world: int, stdin: int = subprocess.DEVNULL) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(path), str(rank), str(world)]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=stdin, stdout=subprocess.PIPE
    )


def test_two_processes_write_one_bank(pristine, tmp_path):
    workers = [worker(tmp_path / "bank", rank, 2) for rank in range(2)]
    assert [w.wait() for w in workers] == [0, 0]
    assert [w.stdout.close() for w in workers] == [None, None]
    BankWriter(tmp_path / "bank", FACTS, ARRAYS).finish()
    assert content(tmp_path / "bank") == content(pristine)


@pytest.mark.parametrize("begun", [1, 2, 3])
def test_killed_in_mid_work_it_continues(pristine, tmp_path, begun):
    """While it writes a shard, or just after that: it may begin so many and no more."""
    with worker(tmp_path / "bank", 0, 1, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"\n" * begun)
        process.stdin.flush()
        told = [process.stdout.readline() for _ in range(1 + begun)]
        process.kill()
    assert told == [b"begun\n", b"shard 0\n", b"shard 1\n", b"shard 2\n"][: 1 + begun]
    assert process.returncode == -signal.SIGKILL
    left = [shard.index for shard in BankWriter(tmp_path / "bank", FACTS, ARRAYS).missing()]
    assert left in (list(range(begun - 1, 4)), list(range(begun, 4)))
    assert content(write(tmp_path / "bank")) == content(pristine)


@pytest.mark.parametrize("torn", [b"", b"torn", None])
def test_a_shard_without_record_is_written_again(pristine, tmp_path, torn):
    """What a kill between files and record leaves behind, here of the shortened last shard, and .partial files."""
    path = write(tmp_path / "bank", order=slice(0, 3), finish=False)
    whole = (pristine / "z/c.3.0.0.0").read_bytes()
    (path / "z/c.3.0.0.0").write_bytes(whole[:-9] if torn is None else torn)
    (path / "z/c.3.0.0.0123.partial").write_bytes(b"half")
    assert [s.index for s in BankWriter(path, FACTS, ARRAYS).missing()] == [3]
    assert content(write(path)) == content(pristine)


def test_a_shard_may_be_written_again(pristine, tmp_path):
    writer = BankWriter(tmp_path / "bank", FACTS, ARRAYS)
    for index, start, stop in [*writer.shards, writer.shards[-1], writer.shards[0]]:
        writer.write(index, **values(FACTS, start, stop))
    writer.finish()
    assert content(tmp_path / "bank") == content(pristine)


def test_a_record_without_its_file_does_not_count(copied, pristine):
    (copied / "x/c.1.0.0.0").unlink()
    (copied / "z/c.2.0.0.0").write_bytes(b"short")
    (copied / "complete/000000.json").write_bytes(b"{")
    assert [s.index for s in BankWriter(copied, FACTS, ARRAYS).missing()] == [0, 1, 2]
    assert content(write(copied)) == content(pristine)


def test_unfinished_is_neither_finished_nor_opened(tmp_path):
    path = write(tmp_path / "bank", order=slice(0, 3), finish=False)
    with pytest.raises(StageFailed, match="1 of 4 shards are missing, first 3"):
        BankWriter(path, FACTS, ARRAYS).finish()
    with pytest.raises(InputError, match="3 of 4 shards"):
        Bank.open(path)
    with pytest.raises(InputError, match=r"bank\.json"):
        Bank.open(tmp_path)


def test_facts_are_never_mixed(copied):
    before = content(copied)
    with pytest.raises(InputError, match=r"seed: 7 there, 8 now.*remove that directory"):
        BankWriter(copied, FACTS.model_copy(update={"seed": 8}), ARRAYS)
    with pytest.raises(InputError, match="arrays: "):
        BankWriter(copied, FACTS, ("z",))
    with pytest.raises(InputError, match="empty directory"):
        BankWriter(copied / "z", FACTS)
    assert content(copied) == before


def test_values_are_checked(tmp_path):
    writer = BankWriter(tmp_path / "bank", FACTS.model_copy(update={"dtype": "float16"}), ARRAYS)
    good = values(FACTS, 0, 64)
    for name, bad in (("z", np.nan), ("x", np.inf), ("z", 7e4)):  # the last is finite in float32, not in float16
        spoilt = {**good, name: good[name].copy()}
        spoilt[name][5, 0, 1, 1] = bad
        with pytest.raises(StageFailed, match=f"{name} is not finite in float16 in 1 of rows 0 to 63, first 5"):
            writer.write(0, **spoilt)
    with pytest.raises(ValueError, match=r"shape \(64, 1, 4, 4\)"):
        writer.write(0, **{**good, "z": good["z"][:63]})
    with pytest.raises(ValueError, match="from -1"):
        writer.write(0, **{**good, "labels": good["labels"] - 1})
    with pytest.raises(ValueError, match="got float64"):
        writer.write(0, **{**good, "labels": good["labels"] * 0.5})
    with pytest.raises(ValueError, match=r"got \('z',\)"):
        writer.write(0, z=good["z"])
    with pytest.raises(ValueError, match=r"got \('x',\)"):
        BankWriter(tmp_path / "other", FACTS, ("x",))
    assert len(writer.missing()) == 4


@pytest.mark.parametrize("file", ["z/c.1.0.0.0", "x/c.3.0.0.0", "labels/c.2"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_a_damaged_shard_is_named_and_never_read(copied, file, damage):
    shard = int(file.split("c.")[1].split(".")[0])
    bank = Bank.open(copied)  # opened before the damage, so that reading has to notice by itself
    data = bytearray((copied / file).read_bytes())
    if damage == "missing":
        (copied / file).unlink()
    elif damage == "flipped":
        data[len(data) // 3] ^= 16
        (copied / file).write_bytes(data)
    else:
        (copied / file).write_bytes(b"" if damage == "empty" else data[:-1])
    name = file.split("/")[0]
    for read in (bank.load, lambda: bank.rows(np.arange(250)), lambda: list(BatchReader(bank, 50, 0).epoch(0))):
        with pytest.raises(DamageError, match=rf"shard {shard}.*{name}.*remove the bank"):
            read()
    assert [(p.shard, p.file) for p in flaws(bank.path)] == [(shard, file)]
    if damage != "flipped":  # sizes are compared on opening, bytes on reading
        with pytest.raises(DamageError, match=f"shard {shard}, {file}"):
            Bank.open(copied)


@pytest.mark.parametrize("file", ["zarr.json", "z/zarr.json", "bank.json", "labels/zarr.json"])
def test_damaged_metadata_is_named(copied, file):
    data = (copied / file).read_bytes()
    (copied / file).write_bytes(data.replace(b'"', b"'", 1))
    with pytest.raises(DamageError, match=file):
        Bank.open(copied)


@pytest.mark.parametrize("arrays", [ARRAYS, ("z",)])
def test_xarray_opens_a_bank_with_its_dimensions_and_without_warnings(tmp_path, arrays):
    path = write(tmp_path / "bank.zarr", arrays=arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_dataset(path, engine="zarr") as data:
            assert set(data.data_vars) == set(arrays)
            assert data["z"].dims == ("pair", "channel", "height", "width")
            expected = values(FACTS, 0, FACTS.pairs, arrays)
            for name in arrays:
                np.testing.assert_array_equal(data[name].values, expected[name])
                assert data[name].dtype == expected[name].dtype and data[name].dims[0] == "pair"
        with xarray.open_zarr(path, chunks=None) as data:
            assert data.sizes["pair"] == FACTS.pairs
