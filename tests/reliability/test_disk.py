"""A disk that is full, cannot be written to, or is gone: one message with its remedy, and then the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.runtime.job import StopSignal
from storage.errors import DiskError, StageFailed
from storage.store import Store
from tests.flows.conftest import RECIPE
from tests.reliability.conftest import NODES, PAYLOADS, digests, make

ORDER = [name for name in PAYLOADS if name != "NFM: evaluation"]


def mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk of memory cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def leave(place: Path, kib: int) -> None:
    """Make the disk so large that so much is free."""
    found = os.statvfs(place)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
    mount("-o", f"remount,size={used + kib}k", place)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_in_every_stage_again_and_again(disk, real):
    """Little is free when a stage begins, and more each time that was too little: every kind of file is cut short."""
    store, full = Store(disk / "store"), dict.fromkeys(ORDER, 0)
    for name in ORDER:
        while True:
            leave(disk, 40 * 3 ** full[name])
            try:
                store.prepare()
                make(store, name)
                break
            except StageFailed as error:
                assert "No space left on device" in str(error) and "free some space" in str(error).lower()
                full[name] += 1
    assert sum(full.values()) >= 15 and sum(count > 0 for count in full.values()) >= 7, full
    for name in ORDER:
        assert digests(store, name) == digests(real, name)


def test_a_store_that_can_only_be_read_is_read(disk, flowctl, monkeypatch, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    mount("-o", "remount,size=64m", disk)
    monkeypatch.setenv("FLOWCTL_HOME", str(disk / "store"))
    store = Store()
    store.prepare()
    make(store, "NFM: data")
    mount("-o", "remount,ro", disk)
    name = f"data/{store.find('data', NODES['NFM: data'].fingerprint).root.name}"
    for words in (("list",), ("plan", recipe), ("show", name), ("status",), ("results",), ("verify",)):
        result = flowctl(*words)
        assert result.exit_code == 0, (words, result.output)
    result = flowctl("run", recipe)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "Read-only file system" in result.stderr and "FLOWCTL_HOME" in result.stderr


@pytest.mark.parametrize(
    ("name", "number", "remedy"),
    [
        ("NFM: bank", errno.EROFS, "make the store writable"),
        ("LOOM: student", errno.ENOSPC, "free some space"),
        ("NFM: bank", errno.EDQUOT, "free some of your quota"),
    ],
)
def test_the_disk_turns_bad_in_the_middle(copied, real, monkeypatch, name, number, remedy):
    """From some renaming on every other one fails, as on a disk that the kernel has made read-only after an error."""
    store, replace, calls = copied(name), os.replace, []

    def refused(source, place):
        calls.append(place)
        if len(calls) > 12:
            raise OSError(number, os.strerror(number), str(source), None, str(place))
        return replace(source, place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refused)
        with pytest.raises(DiskError, match=rf"(?i){os.strerror(number)}.*{remedy}"):
            make(store, name)
    assert len(calls) > 12
    assert make(store, name).action == "resumed"
    assert digests(store, name) == digests(real, name)


class Then(StopSignal):
    """Does something when it is looked at for the n-th time, and never asks to stop."""

    def __init__(self, times: int, action: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.action = times, action

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.action()
        return False


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("NFM: bank", "all of the store"),
        ("NFM: bank", "the work directory"),
        ("LOOM: student", "the work directory"),
        ("semidiscrete: potentials", "all of the store"),
    ],
)
def test_files_that_vanish_in_the_middle(copied, real, name, what):
    """Either it is named, or nothing that was needed has gone; made again, it is what it was."""
    store = copied(name)
    gone = store.home if what == "all of the store" else store.work(NODES[name].name, NODES[name].fingerprint)
    stop = Then(4, lambda: shutil.rmtree(gone))
    try:
        make(store, name, stop=stop)
    except StageFailed as error:
        assert "vanished" in str(error) and str(store.home) in str(error)
        assert isinstance(error, DiskError)
        shutil.rmtree(store.home, ignore_errors=True)
        shutil.copytree(real.home / "artifacts", store.home / "artifacts", copy_function=os.link)
        shutil.rmtree(store.find(NODES[name].name, NODES[name].fingerprint).root)
        make(store, name)
    assert stop.left <= 0  # the files did vanish
    # Pictures of weights that are gone are not drawn again.
    resumed, expected = digests(store, name), digests(real, name)
    assert expected.items() >= resumed.items()
    assert all(file.startswith("previews/") for file in expected.keys() - resumed.keys())
