"""Layouts of ImageNet and its relatives: a list of test images, `<class>/images/`, tars of key.jpg and key.cls."""

import pytest

from pipeline.data.sources import load, source_digest
from pipeline.data.sources.images import UNLISTED
from storage.errors import DataError, InputError, RecipeError
from tests.pipeline.data.sources.formats import coloured, data_config, encoded, make_folder, make_tar, make_zip

CLASSES = ["n01443537", "n02085620"]


def picture(number: int) -> bytes:
    return encoded(coloured(number))


def tiny() -> dict[str, bytes]:
    """As tiny-imagenet-200: 2 classes of 3, 4 images to validate, 2 without a class."""
    files = {
        f"tiny/train/{name}/images/{name}_{i}.JPEG": picture(3 * c + i)
        for c, name in enumerate(CLASSES)
        for i in range(3)
    }
    files |= {f"tiny/train/{name}/{name}_boxes.txt": b"0 0 62 62" for name in CLASSES}
    files |= {f"tiny/val/images/val_{i}.JPEG": picture(6 + i) for i in range(4)}
    files |= {f"tiny/test/images/test_{i}.JPEG": picture(10 + i) for i in range(2)}
    lines = "".join(f"val_{i}.JPEG\t{CLASSES[i % 2]}\t0\t32\t44\t62\n" for i in range(4))
    return files | {"tiny/val/val_annotations.txt": lines.encode(), "tiny/wnids.txt": "\n".join(CLASSES).encode()}


def numbers(split) -> list[int]:
    """Which pictures they are."""
    every = {coloured(i).transpose(2, 0, 1).tobytes(): i for i in range(12)}
    return [every[image.tobytes()] for image in split.images]


def read(path, tmp_path, **changes):
    return load(data_config("images", path=path, **changes), tmp_path / "cache")


@pytest.mark.parametrize("pack", [make_folder, make_zip, make_tar])
def test_tiny_imagenet_is_read_as_it_comes(tmp_path, pack):
    path = tmp_path / "tiny-imagenet-200"
    pack(path, tiny())
    data = read(path, tmp_path, test_list="tiny/val/val_annotations.txt")
    assert data.classes == CLASSES
    assert numbers(data.train) == [0, 1, 2, 3, 4, 5] and data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert numbers(data.test) == [6, 7, 8, 9] and data.test.labels.tolist() == [0, 1, 0, 1]
    assert len(data.left_out[UNLISTED]) == 2 and sorted(name.rpartition("/")[2] for name in data.left_out[".txt"]) == [
        *(f"{name}_boxes.txt" for name in CLASSES),
        "wnids.txt",
    ]  # the list was read


def test_without_the_list_it_is_refused_with_the_setting_that_decides(tmp_path):
    with pytest.raises(DataError) as error:
        read(make_folder(tmp_path / "tiny", tiny()), tmp_path)
    assert "data.test_list" in error.value.remedy and "data.layout" in error.value.remedy


def test_imagenet_with_its_list_of_validation_images(tmp_path):
    """Classes at the top, validation images in one folder; the list has a heading, no extensions, and boxes."""
    files = {f"{name}/{i}.jpg": picture(3 * c + i) for c, name in enumerate(CLASSES) for i in range(3)}
    files |= {f"val/ILSVRC2012_val_{i:08d}.JPEG": picture(6 + i) for i in range(3)}
    lines = "".join(f"ILSVRC2012_val_{i:08d},{CLASSES[1]} 85 1 499 272\n" for i in range(3))
    files["LOC_val_solution.csv"] = f"ImageId,PredictionString\n{lines}".encode()
    data = read(
        make_folder(tmp_path / "imagenet", files), tmp_path, test_list="LOC_val_solution.csv", small_classes="drop"
    )
    assert numbers(data.test) == [6, 7, 8] and data.classes == [CLASSES[1]]  # no other class has a test image
    assert any("ImageId" in note for note in data.notes)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("val_0.JPEG\tn01443537\nval_9.JPEG\tn01443537\n", "val_9.JPEG"),
        ("val_0.JPEG\tn01443537\nval_1.JPEG\tn99999999\n", "n99999999"),
        ("val_0.JPEG\tn01443537\nval_1.JPEG\n", "val_1.JPEG"),
        ("val_0.JPEG n01443537\nval_0.JPEG n02085620\n", "val_0.JPEG: n01443537, n02085620"),
        ("val_9.JPEG\tn01443537\nval_0.JPEG\tn01443537\n", "val_9.JPEG"),  # no heading: it names a class
        ("val 9.JPEG n01443537\nval_0.JPEG n01443537\n", "val: no image"),  # no heading: it has an image's name
        ("val_9.JPEG,n99999999\nval_0.JPEG,n01443537\n", "val_9.JPEG"),
        ("val_0.JPEG n01443537\ntrain/n01443537/images/n01443537_0.JPEG n02085620\n", "n01443537, n02085620"),
        (f"val_0.JPEG,{'n' * 200_000}\n", "field"),
        ("val_0.JPEG\tn01443537\n".encode("utf-16"), "0xff"),
        ("val_0.JPEG\tcafé\n".encode("latin-1"), "0xe9"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, lines, named):
    files = tiny() | {"tiny/val/val_annotations.txt": lines.encode() if isinstance(lines, str) else lines}
    path = make_folder(tmp_path / "tiny", files)
    with pytest.raises(DataError) as error:
        read(path, tmp_path, test_list="tiny/val/val_annotations.txt")
    assert named in str(error.value.value)


def test_fields_may_be_quoted(tmp_path):
    lines = "file,label\n" + "".join(f'"val_{i}.JPEG","{CLASSES[i % 2]}"\n' for i in range(4))
    path = make_folder(tmp_path / "tiny", tiny() | {"list.csv": lines.encode()})
    assert read(path, tmp_path, test_list="list.csv").test.labels.tolist() == [0, 1, 0, 1]


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        read(make_folder(tmp_path / "tiny", tiny()), tmp_path, test_list="val.txt")
    assert error.value.value == "val.txt"


def test_a_name_that_two_images_have_must_be_written_with_its_folders(tmp_path):
    files = {**tiny(), "tiny/val/more/val_0.JPEG": picture(10)}
    path = make_folder(tmp_path / "tiny", files)
    with pytest.raises(DataError):
        read(path, tmp_path, test_list="tiny/val/val_annotations.txt")
    files["tiny/val/val_annotations.txt"] = b"images/val_0.JPEG n01443537\nval_1.JPEG n02085620\n"
    data = read(make_folder(tmp_path / "whole", files), tmp_path, test_list="tiny/val/val_annotations.txt")
    assert numbers(data.test) == [6, 7]


def test_the_list_is_part_of_the_sources_identity(tmp_path):
    path = make_folder(tmp_path / "tiny", tiny())
    config = data_config("images", path=path, test_list="tiny/val/val_annotations.txt")
    before = source_digest(config)
    (path / config.test_list).write_text("val_0.JPEG n01443537\nval_1.JPEG n02085620\n")
    assert source_digest(config) != before
    assert source_digest(data_config("images", path=path)) != before


def test_a_missing_list_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "tiny", tiny())
    monkeypatch.setattr("pipeline.data.sources.digest._digest_of_image", lambda path: pytest.fail("read"))
    with pytest.raises(RecipeError):
        source_digest(data_config("images", path=path, test_list="val.txt"))


def samples(first: int, count: int, classes=("0", "10", "9")) -> dict[str, bytes]:
    return {
        name: content
        for i in range(first, first + count)
        for name, content in ((f"{i:06d}.png", picture(i)), (f"{i:06d}.cls", f"{classes[i % len(classes)]}\n".encode()))
    }


def test_tars_of_samples(tmp_path):
    folder = tmp_path / "wds"
    folder.mkdir()
    make_tar(folder / "set-train-0.tar", samples(0, 3))
    make_tar(folder / "set-train-1.tar", samples(3, 3))
    make_tar(folder / "set-validation-0.tar", samples(6, 3))
    data = read(folder, tmp_path, layout="webdataset")
    assert data.classes == ["0", "9", "10"]
    assert numbers(data.train) == list(range(6)) and data.train.labels.tolist() == [0, 2, 1, 0, 2, 1]
    assert numbers(data.test) == [6, 7, 8] and data.test.labels.tolist() == [0, 2, 1]
    assert not data.left_out
    config = data_config("images", path=folder, layout="webdataset")
    before = source_digest(config)
    make_tar(folder / "set-train-1.tar", samples(3, 2))
    assert source_digest(config) != before


@pytest.mark.parametrize("pack", [make_folder, make_zip, make_tar])
def test_one_archive_or_folder_of_samples_is_split_by_share(tmp_path, pack):
    path = tmp_path / "wds"
    pack(path, samples(0, 12, ("cat", "dog")))
    data = read(path, tmp_path, layout="webdataset", test_fraction=0.5)
    assert data.classes == ["cat", "dog"] and len(data.train.images) == len(data.test.images) == 6
    for split in (data.train, data.test):
        assert [number % 2 for number in numbers(split)] == split.labels.tolist()
    if path.is_dir():
        before = source_digest(data_config("images", path=path, layout="webdataset"))
        (path / "000000.cls").write_text("dog")
        assert source_digest(data_config("images", path=path, layout="webdataset")) != before


def test_samples_may_lie_in_a_folder_within_a_tar(tmp_path):
    folder = tmp_path / "wds"
    folder.mkdir()
    for number in range(2):
        content = samples(6 * number, 6, ("cat", "dog"))
        make_tar(folder / f"train-{number}.tar", {f"imgs/{name}": data for name, data in content.items()})
    data = read(folder, tmp_path, layout="webdataset", test_fraction=0.5)
    assert data.classes == ["cat", "dog"] and len(data.train.images) == len(data.test.images) == 6


def test_tars_for_training_alone_are_split_by_share(tmp_path):
    folder = tmp_path / "wds"
    folder.mkdir()
    for number in range(2):
        make_tar(folder / f"train-{number}.tar", samples(6 * number, 6, ("cat", "dog")))
    data = read(folder, tmp_path, layout="webdataset", test_fraction=0.5)
    assert len(data.train.images) == len(data.test.images) == 6
    with pytest.raises(DataError) as error:
        read(folder, tmp_path)
    assert "webdataset" in error.value.remedy


def test_samples_have_two_readings_until_the_layout_decides(tmp_path):
    path = tmp_path / "wds.tar"
    make_tar(path, samples(0, 6))
    with pytest.raises(DataError) as error:
        read(path, tmp_path)
    assert all(word in error.value.remedy for word in ("webdataset", "classes", "flat"))
    assert read(path, tmp_path, layout="flat").classes is None


def test_what_lies_next_to_tars_is_listed(tmp_path):
    folder = make_folder(tmp_path / "wds", {"x.png": picture(9), "x.cls": b"0", "README": b"", "a/.cache/b.tar": b""})
    make_tar(folder / "A.TAR", samples(0, 9, ("0", "1")))
    data = read(folder, tmp_path, layout="webdataset")
    assert data.left_out == {
        ".png": ["x.png"],
        ".cls": ["x.cls"],
        "no extension": ["README"],
        "hidden": ["a/.cache/b.tar"],
    }
    assert len(data.train.images) + len(data.test.images) == 9


@pytest.mark.parametrize("content", [b"", b" \n", b"caf\xe9", b"cat\ndog\n", "cat".encode("utf-16")])
def test_a_class_is_one_line_of_text(tmp_path, content):
    files = samples(0, 12, ("cat", "dog"))
    assert read(
        make_folder(tmp_path / "bom", files | {"000000.cls": b"\xef\xbb\xbfcat\r\n"}), tmp_path, layout="webdataset"
    )
    with pytest.raises(DataError) as error:
        read(make_folder(tmp_path / "wds", files | {"000000.cls": content}), tmp_path, layout="webdataset")
    assert error.value.value == content


@pytest.mark.parametrize(
    "changes",
    [{"000001.cls": None}, {"000001.jpg": picture(0)}, {"test/000009.png": picture(9), "test/000009.cls": b"0"}],
    ids=["no class", "two images of a key", "half a split"],
)
def test_damaged_samples_are_refused(tmp_path, changes):
    files = {name: content for name, content in {**samples(0, 6), **changes}.items() if content is not None}
    with pytest.raises(DataError):
        read(make_folder(tmp_path / "wds", files), tmp_path, layout="webdataset")


def test_recipes_refuse_a_list_for_other_layouts():
    from pipeline.recipe.load import load as recipe

    source = ["data.source=images", "data.path=x", "data.checksum=null", "data.size=8", "reference.extractor=pixels"]
    assert recipe("fm-fashion", [*source, "data.test_list=val.txt"]).data.test_list == "val.txt"
    with pytest.raises(InputError):
        recipe("fm-fashion", [*source, "data.test_list=val.txt", "data.layout=webdataset"])
    with pytest.raises(InputError):
        recipe("fm-digits", ["data.test_list=val.txt"])
