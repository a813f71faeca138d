"""Folders with one reading are read so, whatever their case; with two they are refused, and data.layout decides."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.data.sources.arrange import arrange, natural
from storage.errors import DataError


def tree(*folders: str) -> list[str]:
    return [f"{folder}/{number}.png".lstrip("/") for folder in folders for number in range(2)]


PAIRS = [("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("training_set", "test_set")]
PAIRS += [("train", "dev"), ("Train Set", "Valid"), ("trainset", "val"), ("train-images", "test-images")]
PAIRS += [("Training", "Validation"), ("train", "eval"), ("train", "held_out"), ("train", "holdout")]
PAIRS += [("train2017", "val2017"), ("train_64x64", "valid_64x64"), ("seg_train", "seg_test"), ("1. TRAIN", "1. TEST")]
PAIRS += [("trainA", "testA"), ("imagesTrain", "imagesTest")]


@pytest.mark.parametrize(("train", "test"), [*PAIRS, ("tr", "te")])
def test_the_usual_names_of_a_split(train, test):
    names = tree(*(f"{part}/{kind}" for part in (train, test) for kind in ("cat", "dog")))
    found = arrange("set", names)
    assert found.classes == ["cat", "dog"]
    assert [name for name, tests in zip(found.names, found.tests, strict=True) if tests] == sorted(
        name for name in names if name.startswith(f"{test}/")
    )


@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_a_split_without_classes_is_no_two_classes(train, test):
    found = arrange("set", tree(train, test))
    assert found.classes is None and found.tests.sum() == 2


@pytest.mark.parametrize(
    "folders",
    [
        ("train2017", "val2017", "test2017"),
        ("trainA", "trainB", "testA", "testB"),
        ("train station", "test tube"),  # classes, but who knows
        ("1_train", "2_test"),
        ("train_val", "dev"),
        ("train", "dev", "extra"),
        ("train/cat", "test/cat", "val/cat"),  # which of two tests?
        ("Train/cat", "training/cat", "test/cat"),  # which of two trains?
        ("cat", "dog", "Test"),  # a class, or images held out?
        ("train/cat", "train/dog", "test/cat", "extra"),
        ("train", "test", ""),
        ("cat/black", "cat/white", "dog/brown"),  # two classes or three?
        ("cat", "cat/black", "dog"),
        ("train/cat/black", "train/cat/white", "train/dog", "test/cat/black", "test/dog"),
        ("cats/train", "cats/test", "dogs/train", "dogs/test"),  # the split below the classes
        ("cat", "dog", ""),
        ("tr", "te"),  # a split without classes, or Turkish and Telugu
    ],
)
def test_two_readings_are_refused_and_layout_decides(folders):
    names = tree(*folders)
    with pytest.raises(DataError) as error:
        arrange("set", names)
    assert "data.layout" in error.value.remedy
    assert arrange("set", names, "flat").classes is None
    if "" not in folders:
        by_hand = sorted({name.split("/")[0] for name in names})
        assert sorted(arrange("set", names, "classes").classes) == by_hand


def test_layout_split_passes_deeper_folders_over_and_says_so():
    names = tree("Train/cat/black", "Train/cat/white", "Train/dog", "val/cat/black", "val/dog")
    found = arrange("set", names, "split")
    assert found.classes == ["cat", "dog"] and found.tests.sum() == 4 and len(found.notes) == 1
    assert arrange("set", names, "flat").tests is None
    assert arrange("set", tree("1_train", "2_test"), "split").tests.sum() == 2
    for folders in (("cat", "dog"), ("train_val", "test"), ("train", "val", "test")):
        with pytest.raises(DataError):
            arrange("set", tree(*folders), "split")


def test_names_that_are_classes_after_all():
    assert arrange("set", tree("boat", "train")).classes == ["boat", "train"]  # no test, so no split
    assert arrange("set", tree("bullet_train", "valley", "evaluator")).classes == [
        "bullet_train",
        "evaluator",
        "valley",
    ]
    assert arrange("set", tree("tr", "en", "fr")).classes == ["en", "fr", "tr"]  # languages
    assert arrange("set", tree("Test", "Train"), "classes").classes == ["Test", "Train"]


def test_folders_that_tell_nothing_apart_are_passed_over():
    assert arrange("set", tree("a/b/cat", "a/b/dog")).classes == ["cat", "dog"]
    assert arrange("set", tree("cat/images", "dog/images")).classes == ["cat", "dog"]
    assert arrange("set", tree("only")).classes is None


def test_a_name_is_one_name_in_both_forms_of_unicode():
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    found = arrange("set", tree(f"train/{nfc}", "train/tea", f"test/{nfd}", "test/tea"))
    assert nfc != nfd and found.classes == [nfc, "tea"] and found.labels.tolist() == [0, 0, 1, 1] * 2
    assert len(found.names) == 8


def test_numbered_folders_are_in_the_order_of_their_numbers_however_long():
    long = ["class" + "9" * 5000, "class1" + "0" * 5000]
    ordered = ["class2", "class010", "class10", "class\u0661\u0661", *long, "klass1"]  # Arabic digits: 11
    assert sorted(sorted(ordered, reverse=True), key=natural) == ordered
