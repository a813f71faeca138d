"""Fréchet distances of foreign images: against arithmetic, in every layout, and the images that are refused."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.evaluation import foreign
from pipeline.evaluation.foreign import Images, against_images, read_images
from pipeline.metrics import Pixels
from storage.errors import DataError


class Grey(Pixels):
    metric, facts = "FD-pixels", {"resized": "no"}


@pytest.fixture(autouse=True)
def pixels(monkeypatch):
    """Pixels in the place of Inception: no download."""
    monkeypatch.setattr(foreign, "load_inception", Grey)


def random(count, channels=3, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_layouts_and_files_hold_the_same_images(tmp_path):
    pixels = random(5)
    np.savez(tmp_path / "nchw.npz", images=pixels)
    np.savez(tmp_path / "nhwc.npz", pixels.transpose(0, 2, 3, 1))  # arr_0, as ADM writes it
    (tmp_path / "folder").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "folder" / f"{number}.png")
    for name in ("nchw.npz", "nhwc.npz", "folder"):
        images = read_images(tmp_path / name)
        assert images.levels == 256 and np.array_equal(images.pixels, pixels)


def test_what_is_transparent_shows_the_colour_that_the_data_have(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_images(tmp_path).pixels == 255).all() and (read_images(tmp_path, "black").pixels == 0).all()


def test_what_is_no_square_is_refused_with_what_helps_here(tmp_path):
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(tmp_path / "long.png")
    with pytest.raises(DataError) as error:
        read_images(tmp_path)
    assert "data.size" not in error.value.remedy


def test_what_is_left_out_or_changed_is_said(tmp_path):
    for number, image in enumerate(random(6)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "raw.nef").write_bytes(b"II*\0 raw")
    (tmp_path / "5.png").rename(tmp_path / "5.jpg")
    images = read_images(tmp_path)
    assert len(images.pixels) == 6 and ["raw.nef" in note for note in images.notes] == [True, False]
    assert "5.jpg" in images.notes[1]
    found = against_images(images, Images(random(6, seed=1), 256), "real", torch.device("cpu"))
    assert found.warnings[:2] == images.notes


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 8, 5), np.uint8),
        np.zeros((4, 3, 3, 3), np.uint8),  # NHWC or NCHW?
    ],
)
def test_other_arrays_are_refused(tmp_path, array):
    np.savez(tmp_path / "x.npz", array)
    with pytest.raises(DataError):
        read_images(tmp_path / "x.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    np.savez(tmp_path / "objects.npz", np.array([{"a": 1}], dtype=object))
    for name in ("torn.npz", "objects.npz", "missing", "missing.npz"):
        with pytest.raises(DataError):
            read_images(tmp_path / name)


def test_a_shift_of_all_pixels_is_the_squared_distance_of_the_means():
    """Equal covariances leave |mean_a - mean_b|^2: 192 features, each shifted by 2 * 10/255."""
    real = random(600) // 2
    shifted = Images(real + np.uint8(10), 256)
    score = against_images(shifted, Images(real, 256), "real", torch.device("cpu"))
    assert score.value == pytest.approx(192 * (20 / 255) ** 2, rel=1e-4)
    assert score.floor > 0 and score.held_out is None
    assert (score.protocol["n_real"], score.protocol["n_fake"], score.protocol["data"]) == (600, 600, "real")
    assert len(score.warnings) == 1 and "600" in score.warnings[0]
    assert against_images(Images(real, 256), Images(real, 256), "real", torch.device("cpu")).value < 1e-6


def test_shapes_must_match():
    for wrong in (random(4, side=7), random(4, channels=3)):
        with pytest.raises(DataError):
            foreign._require_shape(Images(wrong, 256), (1, 8, 8))
    foreign._require_shape(Images(random(4, channels=1), 256), (3, 8, 8))  # grey fills three channels


@pytest.mark.parametrize("name", ["no.npz", "no.zip", "no"])
def test_what_does_not_exist_is_said_to(tmp_path, name):
    with pytest.raises(DataError) as raised:
        read_images(tmp_path / name)
    assert raised.value.value == str(tmp_path / name)


def test_a_damaged_archive_is_refused_or_read_whole(tmp_path):
    """Each single bit of a part of it, and of its first headers."""
    pixels = random(20)
    np.savez_compressed(tmp_path / "x.npz", pixels)
    raw = (tmp_path / "x.npz").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in [*range(30, 180), *rng.integers(0, len(raw), 150)]:
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "x.npz").write_bytes(damaged)
        try:
            found = read_images(tmp_path / "x.npz").pixels
        except DataError:
            refused += 1
        else:
            assert np.array_equal(found, pixels)
    assert refused > 150


def test_members_that_are_no_arrays_or_fit_no_memory_are_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 8, 8, 3)})
    for content in (b"hello", header.getvalue()):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("arr_0" if content == b"hello" else "arr_0.npy", content)
        with pytest.raises(DataError):
            read_images(tmp_path / "x.npz")
