"""A bank that stays on the disk gives the values that it gives from memory, and no damaged ones."""

from __future__ import annotations

import numpy as np
import pytest

from storage.bank import Bank, BankFacts, BankWriter, Streamed, layout
from storage.errors import DamageError

ROWS, DRAWS, SHARD = 50, 5, 48


@pytest.fixture(scope="module", params=[None, 8], ids=["plain", "compressed"])
def bank(request, tmp_path_factory):
    """250 pairs in 6 files, of which the last is short; 16 rows to a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", 16 * 64)
        facts = BankFacts(
            kind="generated", rows=ROWS, draws=DRAWS, shape=(1, 4, 4), dtype="float32", shard=SHARD, seed=7,
            producer="0123abcd", mantissa_bits=request.param,
        )  # fmt: skip
        writer = BankWriter(tmp_path_factory.mktemp("streamed") / "bank", facts, ("z", "x", "labels"))
        values = np.random.default_rng(0).standard_normal((2, ROWS * DRAWS, 1, 4, 4), dtype=np.float32)
        for index, start, stop in writer.shards:
            z, x = values[:, start:stop]
            writer.write(index, z=z, x=x, labels=np.arange(start, stop) % 3)
        writer.finish()
    return Bank.open(writer.path)


@pytest.mark.parametrize("name", ["z", "x"])
def test_any_rows_are_those_of_memory(bank, name):
    whole, streamed = bank.load([name])[name], Streamed(bank, name)
    assert (streamed.shape, streamed.ndim, streamed.dtype, len(streamed)) == (whole.shape, 5, whole.dtype, DRAWS)
    random = np.random.default_rng(1)
    for count in (0, 1, 3, 400):  # 400 of 250: repeated ones among them
        draw, row = random.integers(DRAWS, size=count), random.integers(ROWS, size=count)
        np.testing.assert_array_equal(streamed[draw, row], whole[draw, row])


def test_a_draw_is_an_array_of_rows(bank):
    whole, draw = bank.load(["x"])["x"], Streamed(bank, "x")[3]
    rows = np.array([49, 0, 7, 7])
    assert draw.shape == whole[3].shape
    np.testing.assert_array_equal(draw[rows], whole[3][rows])
    np.testing.assert_array_equal(draw[:20], whole[3][:20])
    with pytest.raises(IndexError):
        Streamed(bank, "x")[DRAWS]


@pytest.mark.parametrize("place", [(DRAWS, 0), (0, ROWS), (-1, 0)])
def test_a_place_outside_is_refused(bank, place):
    with pytest.raises(ValueError):
        Streamed(bank, "z")[tuple(np.array([number]) for number in place)]


def test_a_damaged_chunk_reaches_no_training(bank):
    file = bank.facts.file(bank.path, "z", 2)
    whole = file.read_bytes()
    try:
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        rows = np.arange(ROWS)
        with pytest.raises(DamageError) as error:
            Streamed(Bank.open(bank.path), "z")[np.full(ROWS, 2), rows]
        assert "shard 2" in str(error.value)
    finally:
        file.write_bytes(whole)
