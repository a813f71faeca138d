"""Back from a damaged bank to a whole one: every kind of damage is named, and only bad shards are written again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from storage.bank import BankWriter
from storage.bank.reopen import flaws, reopen
from storage.checksummed_json import read_checksummed, write_checksummed
from storage.errors import DamageError
from tests.storage.test_bank import ARRAYS, FACTS, content, values, write

METADATA = ["zarr.json", "z/zarr.json", "x/zarr.json", "labels/zarr.json"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    return content(write(tmp_path_factory.mktemp("sound") / "bank"))


@pytest.fixture
def bank(sound, tmp_path) -> Path:
    for name, data in sound.items():
        (tmp_path / "bank" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bank" / name).write_bytes(data)
    return tmp_path / "bank"


def flip(file: Path, place: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    file.write_bytes(data)


DAMAGE = {"flipped": flip, "deleted": Path.unlink, "torn": lambda file: file.write_bytes(file.read_bytes()[:-5])}


def completed(path: Path) -> tuple[list[int], dict[str, bytes]]:
    """Which shards a writer writes, and the bytes in the end."""
    writer = BankWriter(path, FACTS, ARRAYS)
    missing = [shard.index for shard in writer.missing()]
    for shard in writer.missing():
        writer.write(shard.index, **values(FACTS, shard.start, shard.stop))
    writer.finish()
    return missing, content(path)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    ("file", "shard"), [("z/c.0.0.0.0", 0), ("x/c.3.0.0.0", 3), ("labels/c.2", 2), ("complete/000001.json", 1)]
)
def test_a_bad_shard_is_written_again_alone(bank, sound, file, shard, how):
    DAMAGE[how](bank / file)
    assert [(problem.shard, problem.file) for problem in flaws(bank)] == [(shard, file)]
    others = {f: (bank / f).stat().st_ino for f in sound if f != "bank.json" and str(shard) not in f.split("/")[-1]}
    assert reopen(bank) == [shard]
    missing, after = completed(bank)
    assert missing == [shard] and after == sound
    assert {f: (bank / f).stat().st_ino for f in others} == others  # the rest was left where it lay
    assert flaws(bank) == []


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", ["facts.json", "bank.json", *METADATA])
def test_what_belongs_to_no_shard_is_restored_without_encoding(bank, sound, file, how):
    DAMAGE[how](bank / file)
    if (file, how) == ("bank.json", "deleted"):
        assert flaws(bank) == []  # a bank that is not finished, as far as it can tell: the manifest knows better
    else:
        assert file in [problem.file for problem in flaws(bank)]
    assert reopen(bank, [file]) == []
    assert completed(bank) == ([], sound)


@pytest.mark.parametrize("file", ["facts.json", "bank.json"])
def test_a_flipped_fact_is_not_believed(bank, sound, file):
    (bank / file).write_text((bank / file).read_text().replace('"seed": 7', '"seed": 3'))
    assert [problem.file for problem in flaws(bank)] == [file]
    assert reopen(bank) == []
    assert completed(bank) == ([], sound)


def test_an_index_that_contradicts_a_record_and_its_files_is_written_again(bank, sound):
    index = read_checksummed(bank / "bank.json")
    index["shards"][1]["files"]["z"]["checksums"] = "0" * 64
    write_checksummed(bank / "bank.json", index)
    assert [(problem.shard, problem.file) for problem in flaws(bank)] == [(None, "bank.json")]
    assert reopen(bank) == []
    assert completed(bank) == ([], sound)


def test_the_facts_of_another_bank_are_not_taken_for_its_own(bank, sound):
    theirs = read_checksummed(bank / "facts.json")
    theirs["facts"]["seed"] = 3
    write_checksummed(bank / "facts.json", theirs)
    assert [problem.file for problem in flaws(bank)] == ["facts.json"]
    with pytest.raises(DamageError, match=r"facts.json and bank.json do not identify"):
        reopen(bank)  # one of the two is wrong, and nothing says which
    assert reopen(bank, ["facts.json"]) == []
    assert completed(bank) == ([], sound)


def test_without_any_facts_there_is_nothing_to_go_on_from(bank):
    before = content(bank)
    for file in ("facts.json", "bank.json"):
        (bank / file).write_bytes(b"{")
    with pytest.raises(DamageError, match="do not identify it"):
        reopen(bank)
    assert {name for name in before} == set(content(bank))  # and nothing was dropped


def test_metadata_that_would_now_be_written_otherwise_are_not_made_up(bank):
    index = read_checksummed(bank / "bank.json")
    index["metadata"]["z/zarr.json"] = "0" * 64
    write_checksummed(bank / "bank.json", index)
    with pytest.raises(DamageError, match=r"z/zarr.json.*in another way"):
        reopen(bank)


def test_metadata_is_restored_where_the_bank_is_all_that_can_be_written_to(bank, sound, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(bank / "missing"))
    for file in ("zarr.json", "z/zarr.json", "complete/000001.json"):
        (bank / file).unlink()
    assert reopen(bank) == [1]
    (bank / "z/zarr.json").unlink()
    assert completed(bank) == ([1], sound)
    assert [file.name for file in bank.parent.iterdir()] == ["bank"]


def test_what_the_manifest_knows_counts_though_the_checksums_hold(bank, sound):
    """A shard that was swapped for another one, with its record and in the index, is only known from outside."""
    assert reopen(bank, ["x/c.1.0.0.0", "complete/000002.json"]) == [1, 2]
    assert completed(bank) == ([1, 2], sound)


def test_foreign_files_go(bank, sound):
    (bank / "z" / ".c.1.0.0.0.1234.partial").write_bytes(b"half")
    (bank / "notes.txt").write_text("mine")
    assert reopen(bank) == []
    assert completed(bank) == ([], sound)


def test_a_shard_of_unfinished_work_is_found_and_dropped(tmp_path, sound):
    path = write(tmp_path / "bank", order=slice(0, 3), finish=False)
    assert flaws(path) == []  # that a shard is not there yet is no flaw
    flip(path / "z/c.1.0.0.0")
    (path / "complete/000002.json").write_bytes(b"{")
    assert [(problem.shard, problem.file) for problem in flaws(path)] == [
        (1, "z/c.1.0.0.0"),
        (2, "complete/000002.json"),
    ]
    assert reopen(path) == [1, 2]
    assert completed(path) == ([1, 2, 3], sound)


@pytest.mark.parametrize("step", range(5))  # bank.json, the record, three files
def test_killed_in_the_middle_it_is_never_believed_and_can_be_repeated(bank, sound, step, monkeypatch):
    """The claims go before what they claim: at each removal that a kill could follow, the damage is still known."""
    flip(bank / "z/c.1.0.0.0")
    removed = []
    unlink = Path.unlink

    def dies(file, **options):
        if len(removed) == step:
            raise OSError("killed")
        removed.append(file)
        unlink(file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(OSError, match="killed"):
            reopen(bank)
    if removed:
        assert not (bank / "bank.json").exists()
    else:
        assert flaws(bank)
    reopen(bank)
    assert completed(bank)[1] == sound
