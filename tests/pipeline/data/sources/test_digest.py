"""The identity of a source: changes with every edit, not with the place or the time, and costs little to ask again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.sources import digest, source_digest
from storage.errors import DataError
from tests.pipeline.data.sources.formats import data_config, make_folder, make_tar

FILES = {"a/1.png": b"one", "a/2.png": b"two", "b/3.jpg": b"three"}


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were read."""
    seen = []
    original = digest.sha256_file
    monkeypatch.setattr(digest, "sha256_file", lambda path: seen.append(path.name) or original(path))
    return seen


def old(root: Path) -> Path:
    """As if written long ago: what is fresh is not remembered."""
    digest._SETTLED_SECONDS = -1e6
    return root


@pytest.fixture(autouse=True)
def settle(monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED_SECONDS", digest._SETTLED_SECONDS)


def of(root: Path, tmp_path: Path) -> str:
    return source_digest(data_config("images", path=root), tmp_path / "cache")


def test_sources_without_files(tmp_path):
    assert source_digest(data_config("digits"), tmp_path) is None
    official = source_digest(data_config("cifar10"), tmp_path)
    assert official == "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    absent = data_config("cifar10", path=tmp_path / "absent", checksum="sha256:12")
    assert source_digest(absent, tmp_path) == "sha256:12"  # nothing is read
    assert not list(tmp_path.iterdir())


def test_content_and_names_count_place_and_time_do_not(tmp_path):
    root = make_folder(tmp_path / "set", FILES)
    first = of(root, tmp_path)
    assert first.startswith("sha256:") and len(first) == 71
    shutil.copytree(root, tmp_path / "copy")
    make_folder(root, {"readme.txt": b"x", ".hidden/a.png": b"x", "a/.b.png": b"x"})
    os.utime(root / "a/1.png", (1, 1))
    assert of(root, tmp_path) == of(tmp_path / "copy", tmp_path) == first
    found = {first}
    (root / "a/1.png").write_bytes(b"ONE")
    found.add(of(root, tmp_path))
    (root / "a/1.png").rename(root / "b/1.png")
    found.add(of(root, tmp_path))
    (root / "b/1.png").unlink()
    found.add(of(root, tmp_path))
    make_folder(root, {"c/4.webp": b""})
    found.add(of(root, tmp_path))
    assert len(found) == 5


def test_a_second_call_only_looks(tmp_path, hashed):
    root = old(make_folder(tmp_path / "set", FILES))
    first = of(root, tmp_path)
    assert sorted(hashed) == ["1.png", "2.png", "3.jpg"]
    hashed.clear()
    assert of(root, tmp_path) == first and not hashed
    (root / "a/2.png").write_bytes(b"TWO")  # of the same size
    assert of(root, tmp_path) != first and hashed == ["2.png"]


def test_fresh_files_are_read_again(tmp_path, hashed):
    """A file changed twice within one tick of the clock keeps its time and perhaps its size."""
    root = make_folder(tmp_path / "set", FILES)
    first = of(root, tmp_path)
    stat = (root / "a/1.png").stat()
    (root / "a/1.png").write_bytes(b"ONE")
    os.utime(root / "a/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert of(root, tmp_path) != first


def test_archives(tmp_path, hashed):
    path = tmp_path / "set.tar"
    checksum = make_tar(path, FILES)
    old(path)
    assert of(path, tmp_path) == checksum == of(path, tmp_path)
    assert hashed == ["set.tar"]
    make_tar(path, {**FILES, "c.png": b""})
    assert of(path, tmp_path) != checksum


@pytest.mark.parametrize("notes", [b"", b"{", b"[]", b"7"])
def test_damaged_notes_are_no_obstacle(tmp_path, notes):
    root = old(make_folder(tmp_path / "set", FILES))
    first = of(root, tmp_path)
    (note,) = (tmp_path / "cache").iterdir()
    note.write_bytes(notes)
    assert of(root, tmp_path) == first


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert of(old(make_folder(tmp_path / "set", FILES)), tmp_path).startswith("sha256:")


def test_without_a_cache(tmp_path, hashed):
    root = old(make_folder(tmp_path / "set", FILES))
    config = data_config("images", path=root)
    assert source_digest(config) == source_digest(config, None) == of(root, tmp_path)
    assert len(hashed) == 9


def test_absent(tmp_path):
    with pytest.raises(DataError) as error:
        of(tmp_path / "absent", tmp_path)
    assert error.value.value == str(tmp_path / "absent")
    with pytest.raises(DataError):
        source_digest(data_config("images"), tmp_path)


def test_planning_stays_light():
    heavy = "torch zarr PIL sklearn pooch scipy"
    code = f"import sys, pipeline.data; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
