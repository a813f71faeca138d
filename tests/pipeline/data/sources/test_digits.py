"""The bundled digits: their number, values and split."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.sources import load
from storage.errors import DataError
from storage.imageset import ImageSet, write_imageset
from tests.pipeline.data.sources.formats import data_config


def test_digits(tmp_path):
    data = load(data_config("digits"), tmp_path)
    assert (data.name, data.levels, data.classes) == ("digits", 17, list("0123456789"))
    assert data.train.images.shape == (1438, 1, 8, 8) and data.test.images.shape == (359, 1, 8, 8)
    assert data.train.images.dtype == np.uint8 and data.train.images.max() == 16
    counts = np.bincount(data.test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    write_imageset(tmp_path / "set", data.name, data.train, data.test, levels=data.levels, classes=data.classes)
    np.testing.assert_array_equal(ImageSet.open(tmp_path / "set").test.images, data.test.images)


def test_limit_and_seed(tmp_path):
    small = load(data_config("digits", limit=20), tmp_path)
    assert small.train.labels.tolist() == list(range(10)) * 2 and len(small.test.images) == 20
    other = load(data_config("digits", limit=20, seed=1), tmp_path)
    assert not np.array_equal(small.train.images, other.train.images)
    for limit in (1, 8, 9):  # fewer than there are classes
        with pytest.raises(DataError):
            load(data_config("digits", limit=limit), tmp_path)
    dropped = load(data_config("digits", limit=8, small_classes="drop"), tmp_path)
    assert dropped.classes == [str(digit) for digit in range(8)] and len(dropped.notes) == 1
    assert dropped.train.labels.tolist() == dropped.test.labels.tolist() == list(range(8))
