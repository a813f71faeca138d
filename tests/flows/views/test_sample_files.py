"""Sampled images in a picture, an archive and a folder."""

import numpy as np
import pytest
from PIL import Image

from flows.views.sample_files import Drawn, write
from pipeline.evaluation.foreign import read_images
from pipeline.reporting.pictures import labelled_rows


@pytest.mark.parametrize("labels", [None, np.array([3, 1, 3])])
def test_all_files_hold_the_same_images(tmp_path, labels):
    """Grey levels 0..16 become 0..255 and return by rounding."""
    images = np.random.default_rng(0).integers(0, 17, (3, 1, 8, 8), dtype=np.uint8)
    write(tmp_path / "x.npz", Drawn(images, labels, 17, None))
    write(tmp_path / "x", Drawn(images, labels, 17, None))
    archive, folder = (read_images(tmp_path / name).pixels for name in ("x.npz", "x"))
    order = [0, 1, 2] if labels is None else [1, 0, 2]  # a folder is read class by class
    assert np.array_equal(np.rint(archive * (16 / 255)), images) and np.array_equal(folder, archive[order])
    if labels is not None:
        assert {path.parent.name for path in (tmp_path / "x").rglob("*.png")} == {"1", "3"}
        assert np.load(tmp_path / "x.npz")["arr_1"].tolist() == [3, 1, 3]


def test_the_picture_has_its_columns_and_a_caption_for_each_class(tmp_path):
    images = np.full((6, 1, 8, 8), 16, np.uint8)
    write(tmp_path / "square.png", Drawn(images, None, 17, None))
    write(tmp_path / "row.png", Drawn(images, None, 17, None), 6)
    write(tmp_path / "classes.png", Drawn(images, np.array([0, 1] * 3), 17, ("0", "1")))
    square, row, classes = (Image.open(tmp_path / f"{name}.png").size for name in ("square", "row", "classes"))
    assert row == (6 * 48 + 5 * 2, 48) and square == (3 * 48 + 2 * 2, 2 * 48 + 2)
    assert classes[0] > square[0] and classes[1] >= square[1]  # two rows of three, and captions at the left


@pytest.mark.parametrize(
    ("classes", "captions"),
    [
        (("cat", "7"), ["cat", "class 7"]),  # a bare number would be read as a count
        (None, ["class 0", "class 1"]),
        (("a" * 100, "caf\udce9"), ["a" * 39 + "…", "caf\\xe9"]),
    ],
)
def test_captions_are_the_names_of_classes(tmp_path, monkeypatch, classes, captions):
    seen = []
    monkeypatch.setattr(
        "flows.views.sample_files.labelled_rows", lambda rows, columns: seen.extend(rows) or labelled_rows(rows)
    )
    drawn = Drawn(np.full((4, 1, 8, 8), 16, np.uint8), np.array([1, 0, 1, 1]), 17, classes)
    write(tmp_path / "x.png", drawn)
    assert [(caption, len(images)) for caption, images in seen] == list(zip(captions, (1, 3), strict=True))


@pytest.mark.parametrize(("channels", "count", "size"), [(1, 5, (148, 98)), (3, 4, (98, 98)), (1, 1, (48, 48))])
def test_pictures_are_grids_of_whole_pixels(tmp_path, channels, count, size):
    images = np.full((count, channels, 8, 8), 16, np.uint8)
    write(tmp_path / "a.png", Drawn(images, None, 17, None))
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == size and picture.getpixel((0, 0)) == (255, 255, 255, 255)
    write(tmp_path / "a.npz", Drawn(images, np.arange(count), 17, None))
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["arr_0"].shape == (count, 8, 8, channels) and (arrays["arr_0"] == 255).all()
    assert arrays["arr_1"].tolist() == list(range(count))
