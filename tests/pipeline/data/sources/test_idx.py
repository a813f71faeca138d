"""MNIST's files: read in either spelling, plain or gzipped; shrunk by exact means; refused when they are damaged."""

from __future__ import annotations

import gzip
import hashlib
import struct
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources import load, source_digest
from pipeline.data.sources.published import IDX, IDX_FILES
from pipeline.data.sources.shrink import shrink
from storage.errors import DataError, DownloadError, RecipeError
from tests.pipeline.data.sources.formats import data_config, make_folder, make_idx


def arrays(train: int = 40, test: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    parts = []
    for count in (train, test):
        parts += [rng.randint(0, 256, (count, 28, 28)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)]
    return dict(zip(IDX_FILES, parts, strict=True))


def files(**changes: bytes) -> dict[str, bytes]:
    return {name: make_idx(array) for name, array in arrays().items()} | changes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_plain_and_gzipped_files(tmp_path, packed, dotted):
    content = {
        (name.replace("-idx", ".idx") if dotted else name) + ".gz" * packed: gzip.compress(data) if packed else data
        for name, data in files().items()
    }
    data = load(data_config("fashion-mnist", path=make_folder(tmp_path / "set", content)), tmp_path)
    assert (data.name, data.levels) == ("fashion-mnist", 256)
    assert data.classes == list(IDX["fashion-mnist"].classes) and data.classes[9] == "Ankle boot"
    for split, names in ((data.train, IDX_FILES[:2]), (data.test, IDX_FILES[2:])):
        np.testing.assert_array_equal(split.images[:, 0], arrays()[names[0]])
        np.testing.assert_array_equal(split.labels, arrays()[names[1]])
        assert split.labels.dtype == np.int64


def test_size_limit_and_classes(tmp_path):
    root = make_folder(tmp_path / "set", files())
    data = load(data_config("mnist", path=root, size=14, limit=6, classes=("3", "7")), tmp_path)
    assert data.classes == ["3", "7"] and data.train.labels.tolist() == [0, 1] * 3
    image = arrays()[IDX_FILES[0]][13].astype(int)  # the second 3
    means = (image.reshape(14, 2, 14, 2).sum((1, 3)) + 2) // 4  # of 2x2 pixels, halves up
    np.testing.assert_array_equal(data.train.images[2, 0], means)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 9), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_shrink_is_the_exact_mean_over_areas(n, size, seed):
    image = np.random.RandomState(seed).randint(0, 256, (1, 1, n, n)).astype(np.uint8)
    if size > n:
        with pytest.raises(RecipeError):
            shrink(image, size)
        return

    def overlap(i: int, j: int) -> Fraction:
        step = Fraction(n, size)
        return max(Fraction(0), min((i + 1) * step, Fraction(j + 1)) - max(i * step, Fraction(j)))

    for y in range(size):
        for x in range(size):
            area = Fraction(size, n) ** 2
            mean = sum(overlap(y, i) * overlap(x, j) * int(image[0, 0, i, j]) for i in range(n) for j in range(n))
            assert shrink(image, size)[0, 0, y, x] == int(mean * area + Fraction(1, 2))


TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, _ = IDX_FILES
WHOLE = files()
BROKEN = {
    "type": {TRAIN_IMAGES: b"\x00\x00\x0d\x03" + WHOLE[TRAIN_IMAGES][4:]},
    "dimensions": {TRAIN_IMAGES: WHOLE[TRAIN_LABELS]},
    "no magic": {TEST_IMAGES: b"\x01" + WHOLE[TEST_IMAGES][1:]},
    "empty": {TRAIN_LABELS: b""},
    "header only": {TRAIN_IMAGES: WHOLE[TRAIN_IMAGES][:9]},
    "truncated": {TRAIN_IMAGES: WHOLE[TRAIN_IMAGES][:-1]},
    "too long": {TRAIN_IMAGES: WHOLE[TRAIN_IMAGES] + b"\x00"},
    "negative size": {TRAIN_LABELS: WHOLE[TRAIN_LABELS][:4] + struct.pack(">i", -1) + WHOLE[TRAIN_LABELS][8:]},
    "gzip cut": {TRAIN_IMAGES: gzip.compress(WHOLE[TRAIN_IMAGES])[:-9]},
    "gzip flipped": {TRAIN_LABELS: gzip.compress(WHOLE[TRAIN_LABELS])[:-8] + bytes(8)},
    "fewer labels": {TRAIN_LABELS: make_idx(np.zeros(39, np.uint8))},
    "label 10": {TRAIN_LABELS: make_idx(np.full(40, 10, np.uint8))},
    "not square": {TRAIN_IMAGES: make_idx(np.zeros((40, 28, 27), np.uint8))},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_damaged_files_are_refused(tmp_path, changes):
    with pytest.raises(DataError):
        load(data_config("mnist", path=make_folder(tmp_path / "set", WHOLE | changes)), tmp_path)


def test_absent_file(tmp_path):
    root = make_folder(tmp_path / "set", WHOLE)
    (root / TRAIN_LABELS).unlink()
    for read in (load, source_digest):
        with pytest.raises(DataError) as error:
            read(data_config("mnist", path=root), tmp_path)
        assert TRAIN_LABELS in error.value.value


def test_checksum_of_a_folder(tmp_path):
    root = make_folder(tmp_path / "set", WHOLE)
    checksum = source_digest(data_config("mnist", path=root), tmp_path)
    assert checksum != source_digest(data_config("mnist"), tmp_path)
    config = data_config("mnist", path=root, checksum=checksum)
    assert len(load(config, tmp_path).train.images) == 40
    (root / TRAIN_LABELS).write_bytes(make_idx(np.zeros(40, np.uint8)))
    changed = source_digest(data_config("mnist", path=root), tmp_path)
    for read in (load, source_digest):  # a plan notices it too
        with pytest.raises(DataError) as error:
            read(config, tmp_path)
        assert error.value.value == changed != checksum


def test_published_files_are_fetched_by_checksum(tmp_path, monkeypatch):
    content = {f"{name}.gz": gzip.compress(data) for name, data in WHOLE.items()}
    make_folder(tmp_path / "served", content)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    checksums = tuple("sha256:" + hashlib.sha256(data).hexdigest() for data in content.values())
    for source in IDX:  # both have files of the same names
        served = IDX[source]._replace(url=f"http://127.0.0.1:{httpd.server_port}", checksums=checksums)
        monkeypatch.setitem(IDX, source, served)
    monkeypatch.setattr("pipeline.data.fetching.RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    try:
        assert len(load(data_config("mnist"), tmp_path / "cache").train.images) == 40
        (tmp_path / "served" / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress(b"another file"))
        assert len(load(data_config("mnist"), tmp_path / "cache").train.images) == 40  # from the cache
        with pytest.raises(DownloadError):
            load(data_config("fashion-mnist"), tmp_path / "cache")
    finally:
        httpd.shutdown()
        httpd.server_close()
