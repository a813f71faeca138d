"""What an interrupted stage has saved, torn, flipped or gone: it goes on from what is sound to the same bytes.

Or it refuses and names what to remove; after that it ends with the same bytes too. Each stage is stopped twice, so that
there are two checkpoints.
"""

import os
import re
import shutil

import pytest

from pipeline.runtime.job import StopSignal
from storage.errors import FlowctlError, Interrupted
from tests.reliability import damage
from tests.reliability.conftest import NODES, digests, make

STAGES = ["NFM: teacher", "NFM: bank", "LOOM: student", "semidiscrete: potentials", "NFM: pairs", "NFM: evaluation"]
QUICK = ["NFM: bank", "LOOM: student", "NFM: evaluation"]  # a bank, a checkpoint with an assignment, and scores


class After(StopSignal):
    """Asks to stop when it is looked at for the n-th time."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="module")
def interrupted(real, tmp_path_factory):
    """A store in which a stage was stopped twice, by the stage."""
    known = {}

    def stopped(name):
        if name not in known:
            folder = tmp_path_factory.mktemp("interrupted")
            store = type(real)(folder)
            shutil.copytree(real.home / "artifacts", folder / "artifacts", copy_function=os.link)
            store.prepare()
            shutil.rmtree(next((folder / "artifacts" / NODES[name].name).glob(f"*-{NODES[name].fingerprint[:12]}")))
            for _ in range(2):
                with pytest.raises(Interrupted):
                    make(store, name, stop=After(3))
            known[name] = store
        return known[name]

    return stopped


def copy_of(source, tmp_path):
    """With links to the artifacts, which nothing writes into."""
    store = type(source)(tmp_path / "store")
    shutil.copytree(source.home / "artifacts", store.home / "artifacts", copy_function=os.link)
    shutil.copytree(source.home / "work", store.home / "work")
    store.prepare()
    return store


def taken_up(interrupted, name, tmp_path, harm, path):
    """A copy of the interrupted store in which one file below the work directory is harmed."""
    source = interrupted(name)
    store = copy_of(source, tmp_path)
    file = store.work(NODES[name].name, NODES[name].fingerprint) / path
    before = file.read_bytes()
    harm(file)
    return store, file, not file.exists() or file.read_bytes() != before


def check(interrupted, real, tmp_path, name, harm, path):
    store, file, harmed = taken_up(interrupted, name, tmp_path, harm, path)
    try:
        make(store, name)
    except FlowctlError as refusal:
        assert harmed and "emove" in str(refusal), refusal  # "Remove the bank ..."
        bank = next(parent for parent in file.parents if parent.suffix == ".zarr")
        assert str(bank) in str(refusal)
        shutil.rmtree(bank)
        make(store, name)
    expected, resumed = digests(real, name), digests(store, name)
    if "previews" in path.parts and harmed and f"previews/{path.name}" not in resumed:
        expected.pop(f"previews/{path.name}")  # the weights that drew it are gone: the picture is left out
    assert resumed == expected
    shutil.rmtree(store.home)


def files_of(store, name):
    work = store.work(NODES[name].name, NODES[name].fingerprint)
    found = [file.relative_to(work) for file in sorted(work.rglob("*")) if file.is_file() and file.stat().st_size]
    assert len(found) >= 4
    return found


@pytest.mark.parametrize("name", QUICK)
def test_one_damage_to_each_kind_of_file(interrupted, real, tmp_path, name):
    """The kinds of damage take turns. Of files that differ in a number, the last one is harmed."""
    kinds = {re.sub(r"\d+", "#", str(path)): path for path in files_of(interrupted(name), name)}
    for number, path in enumerate(kinds.values()):
        check(interrupted, real, tmp_path, name, damage.EVERY[number % len(damage.EVERY)], path)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_every_damage_to_every_file(interrupted, real, tmp_path, name):
    for path in files_of(interrupted(name), name):
        for harm in damage.EVERY:
            check(interrupted, real, tmp_path, name, harm, path)


@pytest.mark.parametrize("name", QUICK)
def test_all_that_was_saved_is_gone(interrupted, real, tmp_path, name):
    """As on a new disk, or after `rm -rf` of the work directory."""
    store, file, _ = taken_up(interrupted, name, tmp_path, damage.deleted, "saved.json")
    shutil.rmtree(file.parent)
    assert make(store, name).action == "run"
    assert digests(store, name) == digests(real, name)


@pytest.mark.parametrize(
    ("name", "path", "key"),
    [("NFM: bank", "out/bank.zarr/facts.json", "sigma_f"), ("NFM: evaluation", "scores.json", "value")],
)
def test_a_number_that_lost_one_bit_is_not_believed(interrupted, real, tmp_path, name, path, key):
    """What is left is valid JSON, of the right shape and size."""

    def harm(file):
        text = file.read_text()
        at = text.index(".", text.index(f'"{key}": ')) + 1
        file.write_text(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])

    store, _, harmed = taken_up(interrupted, name, tmp_path, harm, path)
    assert harmed and make(store, name).action == "resumed"
    assert digests(store, name) == digests(real, name)


def test_a_bank_that_was_begun_keeps_its_sigma(interrupted, real, tmp_path, monkeypatch):
    """Another device would measure it to other last bits, and so begin another bank."""
    from pipeline.stages import bank

    def measured(*_):
        raise AssertionError("measured again")

    store = copy_of(interrupted("NFM: bank"), tmp_path)
    monkeypatch.setattr(bank, "measure_sigma", measured)
    assert make(store, "NFM: bank").action == "resumed"
    assert digests(store, "NFM: bank") == digests(real, "NFM: bank")
