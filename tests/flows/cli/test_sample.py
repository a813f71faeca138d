"""`sample`: the request that it hands to the sampler."""

import numpy as np
import pytest
from PIL import Image

from flows.views.samples import Drawn, SampleRequest, _class, write
from pipeline.evaluation.foreign import read_images
from pipeline.reporting.pictures import labelled_rows
from storage.errors import MissingError, UsageError
from tests.flows.faults import fault


def test_sample_hands_over_its_options(flowctl, finished, tiny, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("flows.views.samples.draw", lambda recipe, request, name: seen.update(request=request))
    monkeypatch.setattr("flows.views.samples.write", lambda out, *_: seen.update(out=out))
    options = [
        "--steps",
        "4",
        "--solver",
        "heun",
        "--class",
        "3",
        "--guidance",
        "1.5",
        "--seed",
        "9",
        "--count",
        "5",
        "--ema",
        "power-0.1",
    ]
    result = flowctl("sample", tiny, *options, "--out", tmp_path / "a.npz")
    assert result.exit_code == 0, result.output
    assert seen == {
        "request": SampleRequest("student", 4, "heun", "3", 1.5, 9, 5, "power-0.1"),
        "out": tmp_path / "a.npz",
    }


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        ((), MissingError, "no student of tiny"),
        (("--model", "onestep"), UsageError, "onestep"),
        (("--out", "x.gif"), UsageError, "x.gif"),
        (("--out", "x.npz", "--grid", "4"), UsageError, "x.npz"),
        (("--out", "/"), UsageError, "/"),  # a folder that is not empty
        (("--solver", "heum"), UsageError, "heum"),
    ],
)
def test_wrong_requests(flowctl, tiny, words, kind, value):
    error = fault(flowctl("sample", tiny, *words))
    assert type(error) is kind and error.value == value


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
        "flows.views.samples.labelled_rows", lambda rows, columns: seen.extend(rows) or labelled_rows(rows)
    )
    drawn = Drawn(np.full((4, 1, 8, 8), 16, np.uint8), np.array([1, 0, 1, 1]), 17, classes)
    write(tmp_path / "x.png", drawn)
    assert [(caption, len(images)) for caption, images in seen] == list(zip(captions, (1, 3), strict=True))


def test_a_number_means_a_class_by_its_place_only_where_no_name_is_a_number():
    assert [_class(name, ("cat", "caf\u00e9")) for name in ("cat", "0", "1", "cafe\u0301")] == [0, 0, 1, 1]
    assert [_class(name, ("1", "2", "10")) for name in ("1", "10")] == [0, 2]
    for name, classes in (("0", ("1", "2", "10")), ("2", ("cat", "dog")), ("x", ("cat", "a\nb"))):
        with pytest.raises(UsageError) as error:
            _class(name, classes)
        assert error.value.value == name and "\n" not in error.value.remedy
