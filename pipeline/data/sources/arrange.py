"""The meaning of an image set's folders: train and test, and classes. Ambiguous layouts are refused, not guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.data.sources.text import listed, normal
from storage.errors import DataError

TRAIN, TEST = r"train|training", r"test|testing|val|valid|validation|heldout|holdout"
_DEV = r"dev|eval|evaluation"  # tests where another folder is for training
_SHORT_TRAIN, _SHORT_TEST = r"tr|trn", r"te|ts|tst"  # may well name classes: Turkish is tr
_OF_WHAT = r"(set|split|data|images|imgs)?"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class Arrangement(NamedTuple):
    """Names of N images, labels (N,) and class names if they have classes, and which test if the folders say so."""

    names: list[str]
    labels: np.ndarray | None
    classes: list[str] | None
    tests: np.ndarray | None  # bool (N,)
    notes: list[str]  # files passed over
    left_out: Sequence[str] = ()  # images that neither train nor test


def arrange(source: str, names: list[str], layout: str = "auto") -> Arrangement:
    """Read the folders in the `names` of all images of `source`.

    Folders that hold everything are passed over, and so are deeper ones that are the same for all. If one folder for
    training and one for tests are all there is then, they are the split, whatever their case: train and test, or names
    that differ in such a word alone, as train2017 and val2017. The next folder names the class; fewer than two of them
    are no classes.

    Args:
        layout: auto; or the meaning of the first folders: `classes`, or `split`, classes below; or `flat`: none.

    Raises:
        DataError: the folders have two readings and `layout` is auto, or they do not have the `layout`.
    """
    names = sorted(names, key=lambda name: (normal(name), name))
    paths = [normal(name).split("/") for name in names]
    if layout == "flat":
        return Arrangement(names, None, None, None, [])
    while all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    tests = _split(source, names, paths, layout)
    folders = [path[0 if tests is None else 1 : -1] for path in paths]
    bare = [name for name, folder in zip(names, folders, strict=True) if not folder]
    inside = [name for name, folder in zip(names, folders, strict=True) if folder]
    if bare and inside:
        remedy = "Move every image into the folder of its class, or set data.layout to flat for no classes."
        raise DataError(
            f"All images of {source} must be in class folders, or none", f"{bare[0]} and {inside[0]}", remedy
        )
    notes = _refuse_deeper(source, folders, layout)
    of_images = [folder[0] if folder else "" for folder in folders]
    classes = sorted(set(of_images), key=natural)
    if len(classes) < 2:
        return Arrangement(names, None, None, tests, notes)
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[name] for name in of_images], dtype=np.int64)
    return Arrangement(names, labels, classes, tests, notes)


def _split(source: str, names: list[str], paths: list[list[str]], layout: str) -> np.ndarray | None:
    """Which images test (N,), None if the first folders are no split."""
    if layout == "classes":
        return None
    tops = sorted({path[0] for path in paths if len(path) > 1}, key=natural)
    loose = [name for name, path in zip(names, paths, strict=True) if len(path) == 1]
    doubtful = False  # whether the two may as well be classes
    if len(tops) == 2 and not loose:
        test = next((test for train, test in (tops, tops[::-1]) if _is_pair(train, test, layout == "split")), None)
        short = any(is_one_of(top, f"{_SHORT_TRAIN}|{_SHORT_TEST}") for top in tops)
        doubtful = test is not None and layout == "auto" and short and all(len(path) == 2 for path in paths)
        if test is not None and not doubtful:
            return np.array([path[0] == test for path in paths])
    value = listed([*tops, *loose[:1]])
    if layout == "split":
        rule = f"{source} must have one folder for training, one for tests and nothing else"
        raise DataError(rule, value, "Rename, merge or move folders, or set data.layout to classes.")
    both = doubtful or set[str]().union(*map(roles_of, tops)) == {"train", "test"}
    if (both or any(is_one_of(top, TEST) for top in tops)) and len(tops) > 1:
        rule = f"Folders of {source} must be train and test and nothing else, or classes"
        remedy = (
            "For a split, move all others and set data.layout to split, or name a list of the test images in "
            "data.test_list; for classes of these names, set data.layout to classes."
        )
        raise DataError(rule, value, remedy)
    return None


def _is_pair(train: str, test: str, stated: bool) -> bool:
    """Whether two folders are for training and for tests; `stated` if the layout says that they are a split."""
    if is_one_of(train, f"{TRAIN}|{_SHORT_TRAIN}") and is_one_of(test, f"{TEST}|{_DEV}|{_SHORT_TEST}"):
        return True
    rests = {
        _WORD.sub(lambda word: "" if roles_of(word[0]) else word[0], folder).casefold() for folder in (train, test)
    }
    return (roles_of(train), roles_of(test)) == ({"train"}, {"test"}) and (stated or len(rests) == 1)


def _refuse_deeper(source: str, folders: list[list[str]], layout: str) -> list[str]:
    """What to note of folders below those of the classes. Raises DataError if they tell images apart."""
    if len({tuple(folder[1:]) for folder in folders}) < 2:
        return []
    deeper = {tuple(folder) for folder in folders if len(folder) > 1}
    value = listed(sorted("/".join(folder) for folder in deeper))
    if layout != "auto":
        return [f"{len(deeper)} folders below those of classes are part of them: {value}"]
    upper = sorted({folder[0] for folder in folders}, key=natural)
    raise DataError(
        f"Class folders of {source} must hold images and no folders",
        value,
        f"For classes {listed(upper)}, each with all below it, set data.layout to classes, or to split below train and "
        "test; for smaller classes, move their folders up",
    )


def is_one_of(folder: str, words: str) -> bool:
    """Whether a folder's name is one of the words, in whatever case, such as train, Train_Set or training-images."""
    plain = re.sub(r"[\s_.\-]+", "", folder.casefold())
    return re.fullmatch(f"({words}){_OF_WHAT}", plain) is not None


def roles_of(name: str) -> set[str]:
    """The roles that a name or one of its words gives a folder or archive: train and test, as in train_64x64, seg_test
    or set-val-0000."""
    words = [name, *_WORD.findall(name)]
    roles = {"train": TRAIN, "test": f"{TEST}|{_DEV}"}
    return {role for role, of in roles.items() if any(is_one_of(word, of) for word in words)}


def natural(name: str) -> list[tuple[bool, int, str, str]]:
    """A key that sorts class2 before class10, so that numbered folders get their numbers as labels."""
    return [_number(part) if part.isdecimal() else (True, 0, "", part) for part in re.split(r"(\d+)", name)]


def _number(digits: str) -> tuple[bool, int, str, str]:
    """A key in the order of numbers. By their digits: Python makes no number of more than some thousands of them."""
    value = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return False, len(value), value, digits
