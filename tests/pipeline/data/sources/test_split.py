"""Splits are stratified, exact in size and depend on the seed alone; limits keep the classes in balance."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.sources import load
from pipeline.data.sources.split import balanced, select, stratified
from storage.errors import DataError
from tests.pipeline.data.sources.formats import data_config, encoded, make_folder


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
    assert labels[balanced(labels, 5, 0)].tolist() == [0, 1, 2, 0, 2]
    assert sorted(balanced(labels, 100, 0)) == list(range(8))


@pytest.mark.parametrize("classes", [1, 3])
def test_limit_draws_from_all_images_of_a_class_by_the_seed_alone(classes):
    labels = np.arange(3000) % classes
    some = balanced(labels, 300, 5)
    for label in range(classes):  # names in order are often subjects or moments in order
        drawn = np.sort(some[labels[some] == label])
        assert len(drawn) == 300 / classes
        assert np.histogram(drawn, bins=5, range=(0, 3000))[0].min() > 30 / classes
    np.testing.assert_array_equal(some, balanced(labels, 300, 5))
    np.testing.assert_array_equal(some[:120], balanced(labels, 120, 5))  # a larger limit adds to a smaller one
    assert set(some) != set(balanced(labels, 300, 6))


def test_limit_takes_more_than_the_first_subject_of_images_without_classes(tmp_path):
    some = {
        f"subject{who}/{i:02}.png": encoded(np.full((8, 8), 50 * who, np.uint8)) for who in range(5) for i in range(20)
    }
    folder = make_folder(tmp_path / "set", some)
    data = load(data_config("images", path=folder, layout="flat", limit=12), tmp_path)
    assert data.classes is None and len(data.train.images) == 12
    assert len(set(data.train.images[:, 0, 0, 0])) >= 3 and len(set(data.test.images[:, 0, 0, 0])) >= 3


def choose(train: list[int], test: list[int], classes: list[str] | None = None, **changes):
    classes = ["a", "b", "c"] if classes is None else classes
    return select(data_config("images", **changes), "toy", np.array(train), np.array(test), classes or None)


@pytest.mark.parametrize(("train", "test"), [([0], [0] * 5), ([0] * 5, []), ([], [])])
def test_too_few(train, test):
    with pytest.raises(DataError) as error:
        choose(train, test, [])
    assert error.value.value == f"{len(train)} and {len(test)}"
    assert choose([0, 0], [0], []).train.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("train", "test", "changes", "small"),
    [
        ([0, 0, 1, 1], [0, 1], {}, ["c"]),  # named, and without an image
        ([0, 0, 1, 1, 2], [0, 1], {}, ["c"]),  # without a test image
        ([0, 0, 1, 1], [0, 1, 2], {}, ["c"]),  # without a training image
        ([0, 0, 1, 1, 2, 2], [0, 1, 2], {"limit": 2}, ["c"]),
        ([0, 0, 0], [0], {}, ["b", "c"]),
    ],
)
def test_classes_too_small_are_refused_or_dropped(train, test, changes, small):
    with pytest.raises(DataError) as error:
        choose(train, test, **changes)
    assert all(name in error.value.value for name in small)
    some = choose(train, test, small_classes="drop", **changes)
    assert some.dropped == small and some.named(["a", "b", "c"]) == [name for name in "abc" if name not in small]
    kept = np.array(train)[some.train]
    assert set(kept) == set(some.numbers) == set(np.array(test)[some.test])
    split = some.split(np.zeros(len(train)), np.array(train), some.train)
    assert set(split.labels) == set(range(len(some.numbers)))  # one source for the number of classes


def test_classes_that_a_limit_empties_may_be_dropped_alone():
    train, test = [0, 0, 1, 1, 2, 2], [0, 1, 2]
    assert choose(train, test, small_classes="drop-limited", limit=2).dropped == ["c"]
    for limit in (2, None):
        with pytest.raises(DataError):
            choose(train[:-2], test, small_classes="drop-limited", limit=limit)


def test_classes_that_are_not_asked_for_may_be_small():
    some = select(data_config("images", classes=("a", "b")), "toy", np.array([0, 1]), np.array([0, 1]), ["a", "b", "c"])
    assert some.numbers.tolist() == [0, 1] and not some.dropped
