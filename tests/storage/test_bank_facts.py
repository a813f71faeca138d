"""What a bank says of itself is what it was begun with: pairs divided by two factors are never in one bank."""

from __future__ import annotations

import pytest

from storage.bank import Bank, BankWriter, facts_of
from storage.errors import DamageError
from tests.storage.test_bank import ARRAYS, FACTS, content, write


@pytest.fixture
def begun(tmp_path):
    """Two of the four shards."""
    return write(tmp_path / "bank", order=slice(0, 2), finish=False)


def changed(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_flipped_factor_of_a_begun_bank_is_not_believed_and_put_right(begun, tmp_path):
    changed(begun / "facts.json", '"sigma_f": 1.5', '"sigma_f": 1.1')
    assert facts_of(begun) is None  # so it is measured again, and is what it was
    assert [shard.index for shard in BankWriter(begun, FACTS, ARRAYS).missing()] == [2, 3]
    assert facts_of(begun) == FACTS
    assert content(write(begun)) == content(write(tmp_path / "undisturbed"))


@pytest.mark.parametrize("sigma", [1.1, 1.5000000000000002])  # as flipped, and as another device would measure it
def test_shards_divided_by_another_factor_are_never_gone_on_with(begun, sigma):
    changed(begun / "facts.json", '"sigma_f": 1.5', '"sigma_f": 1.1')
    before = content(begun)
    with pytest.raises(DamageError, match=r"facts\.json.*checksum.*[Rr]emove the bank"):
        BankWriter(begun, FACTS.model_copy(update={"sigma_f": sigma}), ARRAYS)
    assert content(begun) == before


def test_without_its_checksum_nothing_tells_what_the_facts_were(begun):
    (begun / "facts.json").write_bytes((begun / "facts.json").read_bytes()[:80])
    assert facts_of(begun) is None
    with pytest.raises(DamageError, match=r"facts\.json.*remove the bank"):
        BankWriter(begun, FACTS, ARRAYS)


def test_a_flipped_factor_of_a_finished_bank_is_never_read(tmp_path):
    path = write(tmp_path / "bank")
    assert Bank.open(path).facts == FACTS
    changed(path / "bank.json", '"sigma_f": 1.5', '"sigma_f": 1.1')
    with pytest.raises(DamageError, match=r"bank\.json.*checksum"):
        Bank.open(path)
