"""Image sets: what is written is read, equal content has equal bytes, and no damaged byte is ever returned."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from storage.errors import DamageError, DataError, InputError, MissingError
from storage.imageset import ImageSet, Split, write_imageset
from tests.shared import without_hard_links


def split(n: int, labels: bool = True, channels: int = 1, size: int = 4, levels: int = 17) -> Split:
    images = np.random.RandomState(n).randint(0, levels, (n, channels, size, size)).astype(np.uint8)
    return Split(images, np.arange(n, dtype=np.int64) % 2 if labels else None)


def write(path: Path, **changes) -> Path:
    arguments = {"name": "toy", "train": split(30), "test": split(10), "levels": 17, "classes": ["a", "b"], **changes}
    write_imageset(path, **arguments)
    return path


def content(root: Path) -> dict[str, bytes]:
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_round_trip(tmp_path):
    found = ImageSet.open(write(tmp_path / "set"))
    assert (found.name, found.levels, found.classes, found.channels, found.size) == ("toy", 17, ["a", "b"], 1, 4)
    for read, written in ((found.train, split(30)), (found.test, split(10))):
        np.testing.assert_array_equal(read.images, written.images)
        np.testing.assert_array_equal(read.labels, written.labels)
        assert read.images.dtype == np.uint8 and read.labels.dtype == np.int64
    assert found.train is found.train


def test_without_classes_and_in_colour(tmp_path):
    parts = {"train": split(9, False, 3, levels=256), "test": split(3, False, 3, levels=256)}
    found = ImageSet.open(write(tmp_path / "set", **parts, levels=256, classes=None))
    assert found.classes is None and found.train.labels is None and found.channels == 3
    np.testing.assert_array_equal(found.test.images, parts["test"].images)


def test_several_shards_and_constant_content(tmp_path):
    """A shard that equals Zarr's fill value throughout must be on disk, or a lost one could not be told from it."""
    train = Split(np.zeros((9000, 1, 2, 2), np.uint8), np.zeros(9000, np.int64))
    found = ImageSet.open(write(tmp_path / "set", train=train, test=split(5, size=2)))
    assert found.train.images.shape == (9000, 1, 2, 2) and not found.train.images.any() and not found.train.labels.any()
    (tmp_path / "set/train/images/c.1.0.0.0").unlink()
    with pytest.raises(DamageError, match=r"train/images/c\.1\.0\.0\.0: is missing"):
        ImageSet.open(tmp_path / "set")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_hard_links_is_good_enough(tmp_path, monkeypatch, number):
    first = content(write(tmp_path / "a"))
    without_hard_links(monkeypatch, number)
    assert content(write(tmp_path / "b")) == first


def test_equal_content_has_equal_bytes_and_replaces_itself(tmp_path):
    first = content(write(tmp_path / "a"))
    assert content(write(tmp_path / "b")) == first
    assert content(write(tmp_path / "a")) == first
    write(tmp_path / "a", test=split(12))
    assert len(ImageSet.open(tmp_path / "a").test.images) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_killed_writer_leaves_nothing_that_opens(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.imageset.fsync_tree", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "set")
    with pytest.raises(InputError, match="image set"):
        ImageSet.open(tmp_path / "set")
    monkeypatch.undo()
    assert len(ImageSet.open(write(tmp_path / "set")).train.images) == 30  # over the remains


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"train": Split(np.zeros((4, 1, 4, 5), np.uint8), np.zeros(4, np.int64))}, "uint8 (4, 1, 4, 5)"),
        ({"train": Split(np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.int64))}, "uint8 (4, 4, 4)"),
        ({"test": Split(np.zeros((4, 1, 4, 4), np.float32), np.zeros(4, np.int64))}, "float32 (4, 1, 4, 4)"),
        ({"test": Split(np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, np.int64))}, "uint8 (0, 1, 4, 4)"),
        ({"levels": 16}, 16),
        ({"levels": 1}, 1),
        ({"levels": 257}, 257),
        ({"classes": ["a"]}, "0 to 1"),
        ({"classes": ["a", "a"]}, ["a", "a"]),
        ({"classes": None}, "no class names"),
        ({"train": split(30, labels=False)}, "no labels"),
        ({"train": split(30)._replace(labels=np.zeros(29, np.int64))}, "int64 (29,)"),
        ({"train": split(30)._replace(labels=np.zeros(30, np.int32))}, "int32 (30,)"),
        ({"train": split(30)._replace(labels=np.full(30, -1))}, "-1 to -1"),
        ({"test": split(10, size=6)}, {"train": (1, 4, 4), "test": (1, 6, 6)}),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, changes, got):
    with pytest.raises(DataError) as error:
        write(tmp_path / "set", **changes)
    assert error.value.value == got
    assert not list(tmp_path.iterdir())


def test_what_is_no_image_set_is_neither_opened_nor_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MissingError):
        ImageSet.open(tmp_path)
    with pytest.raises(InputError):
        write(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_every_damaged_file_is_named(tmp_path):
    pristine = write(tmp_path / "pristine")
    files = sorted(content(pristine))
    assert len(files) == 11
    for file in files:
        for damage in ("missing", "empty", "truncated", "flipped"):
            shutil.rmtree(tmp_path / "set", ignore_errors=True)
            shutil.copytree(pristine, tmp_path / "set")
            target = tmp_path / "set" / file
            data = bytearray(target.read_bytes())
            if damage == "missing" and file == "zarr.json":
                continue  # no image set then: tested above
            if damage == "missing":
                target.unlink()
            elif damage == "flipped":
                data[len(data) // 2] ^= 1
                target.write_bytes(data)
            else:
                target.write_bytes(b"" if damage == "empty" else data[:-1])
            with pytest.raises(DamageError) as raised:
                found = ImageSet.open(tmp_path / "set")
                _ = found.train, found.test
            assert file.split("/c.")[0].removesuffix("/zarr.json") in str(raised.value), (file, damage)


def test_a_consistent_forgery_is_still_validated(tmp_path):
    """Attributes edited by hand are noticed by their digest; so are facts that no writer would write."""
    path = write(tmp_path / "set")
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["levels"] = 256
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(DamageError, match="attributes were changed"):
        ImageSet.open(path)


def latents(n: int, size: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4, size, size)).astype(np.float32)


@pytest.mark.parametrize("rows", [30, 60])
def test_latents_are_what_networks_see_and_images_stay(tmp_path, rows):
    encoded = latents(rows), latents(10)
    found = ImageSet.open(write(tmp_path / "set", latents=encoded))
    assert found.shape == (4, 2, 2) and found.levels is None and found.classes == ["a", "b"]
    np.testing.assert_array_equal(found.train.images, encoded[0])
    np.testing.assert_array_equal(found.train.labels, np.tile(split(30).labels, rows // 30))
    np.testing.assert_array_equal(found.test.images, encoded[1])
    np.testing.assert_array_equal(found.test.labels, split(10).labels)
    real = found.originals
    assert real.shape == (1, 4, 4) and real.levels == 17 and real.classes == ["a", "b"]
    np.testing.assert_array_equal(real.train.images, split(30).images)
    np.testing.assert_array_equal(real.train.labels, split(30).labels)


def test_classes_that_networks_are_not_told(tmp_path):
    found = ImageSet.open(write(tmp_path / "set", conditional=False, latents=(latents(60), latents(10))))
    assert found.classes is None and found.train.labels is None and len(found.train.images) == 60
    assert found.originals.classes == ["a", "b"]
    np.testing.assert_array_equal(found.originals.test.labels, split(10).labels)


def test_a_set_without_either_is_its_own_original(tmp_path):
    found = ImageSet.open(write(tmp_path / "set"))
    np.testing.assert_array_equal(found.originals.train.images, found.train.images)
    assert (found.originals.levels, found.originals.classes) == (found.levels, found.classes)


@pytest.mark.parametrize(
    ("pair", "got"),
    [
        ((latents(29), latents(10)), "29 of 30 images"),
        ((latents(90), latents(10)), "90 of 30 images"),
        ((latents(30), latents(20)), "20 of 10 images"),
        ((latents(30).astype(np.float64), latents(10)), "float64 (30, 4, 2, 2)"),
        ((latents(30)[..., :1], latents(10)), "float32 (30, 4, 2, 1)"),
        ((latents(30), latents(10, size=4)), {"train": (4, 2, 2), "test": (4, 4, 4)}),
        ((np.where(latents(30) > 3, np.nan, latents(30)), latents(10)), "1 of 480 values"),
    ],
)
def test_latents_that_do_not_fit_are_refused(tmp_path, pair, got):
    assert latents(30).max() > 3
    with pytest.raises(DataError) as error:
        write(tmp_path / "set", latents=pair)
    assert error.value.value == got
    assert not list(tmp_path.iterdir())


def test_damaged_latents_are_named(tmp_path):
    path = write(tmp_path / "set", latents=(latents(30), latents(10)))
    target = path / "train/latents/c.0.0.0.0"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    found = ImageSet.open(path)
    assert len(found.test.images) == 10 and len(found.originals.train.images) == 30
    with pytest.raises(DamageError, match="train/latents"):
        _ = found.train
