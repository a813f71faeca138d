"""Epochs of a bank: every pair once, in an order of its own, the same from memory or disk, and from any batch on."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from storage.bank import Bank, BankFacts, BankWriter, BatchReader, batches, layout, loading
from storage.errors import DamageError, InputError

ROWS, DRAWS, SHARD = 50, 5, 48
PAIRS = ROWS * DRAWS
ROW_BYTES = 2 * 64 + 8
STREAM = 8 * 16 * ROW_BYTES  # two windows of four chunks of 16 rows


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """z and x of a row are its flat index. 250 rows in 6 files, of which the last is short; 16 rows to a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", 16 * 64)
        facts = BankFacts(
            kind="generated", rows=ROWS, draws=DRAWS, shape=(1, 4, 4), dtype="float32", shard=SHARD, seed=7,
            producer="0123abcd",
        )  # fmt: skip
        writer = BankWriter(tmp_path_factory.mktemp("reader") / "bank", facts, ("z", "x", "labels"))
        for index, start, stop in writer.shards:
            flat = np.arange(start, stop)
            z = np.broadcast_to(flat[:, None, None, None], (stop - start, 1, 4, 4)).astype(np.float32)
            writer.write(index, z=z, x=-z, labels=flat % 3)
        writer.finish()
    return writer.path


@pytest.fixture
def bank(path):
    return Bank.open(path)


def flat(given) -> np.ndarray:
    """Flat indices of batches, whose arrays must be those of the indices."""
    found = []
    for batch in given:
        index = batch["index"]
        np.testing.assert_array_equal(batch["z"], np.broadcast_to(index[:, None, None, None], batch["z"].shape))
        np.testing.assert_array_equal(batch["x"], -batch["z"])
        np.testing.assert_array_equal(batch["labels"], index % 3)
        found.append(index)
    return np.concatenate(found) if found else np.array([], dtype=int)


@pytest.fixture(params=[2**30, STREAM, 2 * 16 * ROW_BYTES], ids=["resident", "streaming", "one chunk"])
def buffer(request):
    return request.param


def test_a_chunk_is_as_small_as_meant(bank, buffer):
    assert bank.chunk == 16
    assert BatchReader(bank, 24, 0, buffer_bytes=buffer).resident == (buffer == 2**30)


@pytest.mark.parametrize("batch", [1, 24, 100, 250, 999])
def test_an_epoch_holds_every_pair_once_in_a_new_order(bank, buffer, batch):
    reader = BatchReader(bank, batch, 1, buffer_bytes=buffer)
    whole = list(reader.epoch(0))
    assert len(whole) == len(reader) == -(-PAIRS // batch)
    assert {len(b["index"]) for b in whole[:-1]} <= {batch}
    first = flat(whole)
    np.testing.assert_array_equal(np.sort(first), np.arange(PAIRS))
    np.testing.assert_array_equal(first, flat(BatchReader(bank, batch, 1, buffer_bytes=buffer).epoch(0)))
    for other in (reader.epoch(1), BatchReader(bank, batch, 2, buffer_bytes=buffer).epoch(0)):
        assert (first == flat(other)).mean() < 0.2


def test_the_batch_does_not_move_the_order(bank, buffer):
    orders = [flat(BatchReader(bank, batch, 1, buffer_bytes=buffer).epoch(3)) for batch in (7, 100)]
    np.testing.assert_array_equal(*orders)


def test_an_epoch_goes_on_at_any_batch(bank, buffer):
    reader = BatchReader(bank, 24, 3, buffer_bytes=buffer)
    whole = [batch["index"] for batch in reader.epoch(4)]
    for start in range(len(whole) + 2):
        rest = [batch["index"] for batch in reader.epoch(4, start)]
        assert len(rest) == max(0, len(whole) - start)
        for ours, theirs in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_order_is_known_without_reading(bank, buffer, monkeypatch):
    reader = BatchReader(bank, 24, 3, rank=1, world=2, buffer_bytes=buffer)
    expected = [batch["index"] for batch in reader.epoch(4, 2)]
    monkeypatch.setattr(Bank, "read", None)
    for ours, theirs in zip(reader.indices(4, 2), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("world", [2, 3, 4, 7, 300])
def test_ranks_share_an_epoch(bank, buffer, world):
    """Disjoint and complete; where world does not divide the pairs, at most world - 1 of them come twice."""
    readers = [BatchReader(bank, 16, 3, rank=rank, world=world, buffer_bytes=buffer) for rank in range(world)]
    parts = [flat(reader.epoch(4)) for reader in readers]
    assert {len(part) for part in parts} == {-(-PAIRS // world)}
    assert len({len(reader) for reader in readers}) == 1
    assert all(len(np.unique(part)) == len(part) for part in parts)
    times = np.bincount(np.concatenate(parts), minlength=PAIRS)
    assert times.min() == 1 and times.max() <= 2 and times.sum() - PAIRS < world


def test_a_window_mixes_chunks_from_all_over_the_bank(bank):
    """What lies side by side on disk, such as a class, is spread over the epoch."""
    order = flat(BatchReader(bank, 1, 0, buffer_bytes=STREAM).epoch(0))
    first = order[:48]  # of the first window's 64, or 58 with the short chunk
    assert len(np.unique(first // 16)) == 4 and np.abs(np.diff(first)).mean() > 16
    assert len(np.unique(order[:64] // SHARD)) > 2


def test_what_is_in_memory_is_bounded(tmp_path, monkeypatch):
    """By the buffer and what the caller holds, whatever the length of the epoch; later epochs use the same memory."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 2**15)
    monkeypatch.setattr(loading, "BLOCK_BYTES", 2**17)
    monkeypatch.setattr(batches, "BLOCK_BYTES", 2**17)
    z = np.random.default_rng(0).standard_normal((2048, 16, 8, 8), dtype=np.float32)  # 8 MiB
    facts = BankFacts(kind="encoded", rows=2048, draws=1, shape=(16, 8, 8), dtype="float32", shard=512, seed=0,
                      producer="0123abcd")  # fmt: skip
    writer = BankWriter(tmp_path / "bank", facts)
    for index, start, stop in writer.shards:
        writer.write(index, z=z[start:stop])
    writer.finish()
    reader = BatchReader(Bank.open(tmp_path / "bank"), 32, 0, buffer_bytes=2**20)
    next(reader.epoch(0))
    tracemalloc.start()
    try:
        for epoch in range(3):
            for batch in reader.epoch(epoch):
                np.testing.assert_array_equal(batch["z"][::9], z[batch["index"][::9]])
        assert tracemalloc.get_traced_memory()[1] < 1.5 * 2**20
        (blocks,) = reader._spare
        before = {id(block) for block in blocks._blocks}
        sum(1 for _ in reader.epoch(3))
        assert before and before <= {id(block) for block in blocks._blocks}
        assert sum(block.memory.nbytes for block in blocks._blocks) <= 2**20 + 2**18
    finally:
        tracemalloc.stop()


def test_batches_that_are_kept_stay_as_they_were(bank, buffer, monkeypatch):
    """Memory is used again only once nobody holds an array in it, be it through another one."""
    monkeypatch.setattr(loading, "BLOCK_BYTES", 1)
    reader = BatchReader(bank, 24, 0, buffer_bytes=buffer)
    kept, views = [], []
    for epoch in range(4):
        for number, batch in enumerate(reader.epoch(epoch)):
            if number % 3 == 0:
                kept.append(batch)
                views.append((memoryview(batch["x"]), batch["index"]))
            del batch
    flat(kept)
    del kept
    flat(reader.epoch(9))
    for view, index in views:
        np.testing.assert_array_equal(np.asarray(view)[:, 0, 0, 0], -index)


def test_epochs_may_be_read_side_by_side_and_left(bank, buffer):
    reader = BatchReader(bank, 24, 0, buffer_bytes=buffer)
    expected = [flat(reader.epoch(e)) for e in (0, 1)]
    left = reader.epoch(5)
    next(left)
    left.close()
    pairs = list(zip(reader.epoch(0), reader.epoch(1), strict=True))
    for side in (0, 1):
        np.testing.assert_array_equal(flat(pair[side] for pair in pairs), expected[side])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bank")]


def test_a_batch_is_the_callers_own(bank, buffer):
    reader = BatchReader(bank, 24, 0, buffer_bytes=buffer)
    for batch in reader.epoch(0):
        for values in batch.values():
            values[:] = 0
    assert len(flat(reader.epoch(0))) == PAIRS


def test_damage_is_found_in_whatever_epoch(path, bank, buffer, tmp_path):
    for file in path.rglob("*"):
        target = tmp_path / "bank" / file.relative_to(path)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    bank = Bank.open(tmp_path / "bank")
    reader = BatchReader(bank, 24, 0, buffer_bytes=buffer)
    if not reader.resident:
        flat(reader.epoch(0))  # what was sound once is not believed again
    file = tmp_path / "bank/x/c.2.0.0.0"
    data = bytearray(file.read_bytes())
    data[1500] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamageError, match=r"shard 2, x/c\.2\.0\.0\.0: .*checksum"):
        list(reader.epoch(1))


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rank": 2, "world": 2}, {"rank": -1}, {"buffer_bytes": 1000}])
def test_bad_arguments(bank, wrong):
    with pytest.raises(InputError):
        BatchReader(bank, **{"batch": 16, "seed": 0} | wrong)
