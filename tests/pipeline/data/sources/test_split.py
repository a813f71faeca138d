"""Splits are stratified, exact in size and depend on the seed alone; limits keep the classes in balance."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.sources.split import balanced, limited, require_enough, stratified
from storage.errors import InputError
from storage.imageset import Split


@pytest.mark.parametrize("fraction", [0.01, 0.2, 1 / 3, 0.5, 0.9])
def test_split_is_stratified_and_exact(fraction):
    labels = np.random.RandomState(0).choice(7, 1000, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.04, 0.01])
    train, test = stratified(labels, fraction, 0)
    assert len(test) == round(1000 * fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1000))
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    for label in range(7):
        assert abs((labels[test] == label).sum() - (labels == label).sum() * fraction) <= 1


def test_split_depends_on_the_seed_alone():
    labels = np.arange(100) % 10
    first = stratified(labels, 0.3, 5)[1]
    np.testing.assert_array_equal(first, stratified(labels, 0.3, 5)[1])
    assert not np.array_equal(first, stratified(labels, 0.3, 6)[1])
    assert first[:5].tolist() == [2, 4, 5, 6, 13]  # the same on every machine and with every NumPy


def test_limit_is_balanced():
    labels = np.array([2, 2, 2, 2, 0, 0, 1, 2])
    assert labels[balanced(labels, 5)].tolist() == [0, 1, 2, 0, 2]
    assert balanced(labels, 5).tolist() == [4, 6, 0, 5, 1]
    assert len(balanced(labels, 100)) == 8
    split = Split(np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1), labels)
    assert limited(split, None) is split
    assert limited(split, 3).images.flatten().tolist() == [4, 6, 0] and limited(split, 3).labels.tolist() == [0, 1, 2]
    assert limited(split._replace(labels=None), 3).images.flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("counts", [(1, 5), (5, 0), (0, 0)])
def test_too_few(counts):
    with pytest.raises(InputError, match=r"at least 2 training images and 1 test.*data\.test_fraction"):
        require_enough("toy", *counts)
    require_enough("toy", 2, 1)
