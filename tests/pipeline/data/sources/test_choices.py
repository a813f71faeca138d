"""Some classes, no classes, latents: what may be chosen of a data set, and that no choice moves what was there."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest

from pipeline.data.sources import digest, load, source_digest
from pipeline.recipe.fingerprint import fingerprint
from pipeline.recipe.sections import Data, LpipsHuber, Reference
from pipeline.stages import data as stage
from storage.errors import DataError, RecipeError
from storage.imageset import ImageSet
from tests.pipeline.data.sources.formats import coloured, data_config, encoded, make_cifar10_archive, make_folder
from tests.pipeline.jobs import job

DIGITS = "db75ff4b366be9670f96cb27efea33b592dc1ebe49e6d1ebfad4768c82535f76"


def of(**changes) -> str:
    return fingerprint("data", 1, Data(source="digits", **changes), {})


def test_new_choices_keep_old_fingerprints():
    assert of() == of(classes=None, labels=True, autoencoder=None) == DIGITS
    assert len({DIGITS, of(classes=["3"]), of(classes=["3", "8"]), of(labels=False)}) == 4
    assert of(classes=[8, 3]) == of(classes=["3", "8", "3"])  # one choice, however it is written


def test_names_are_texts_or_whole_numbers():
    assert Data(source="digits", classes=[8, "3"]).classes == ("3", "8")
    for wrong in ([], [True], [1.5], "3", [None]):
        with pytest.raises(ValueError, match="classes"):
            Data(source="digits", classes=wrong)


def test_only_some_digits_are_split_as_among_all():
    whole, some = load(data_config("digits")), load(data_config("digits", classes=("8", "3")))
    assert some.classes == ["3", "8"]
    for split in ("train", "test"):
        every, kept = getattr(whole, split), getattr(some, split)
        chosen = np.isin(every.labels, [3, 8])
        np.testing.assert_array_equal(kept.images, every.images[chosen])
        np.testing.assert_array_equal(np.array([3, 8])[kept.labels], every.labels[chosen])
    assert len(load(data_config("digits", classes=("8", "3"), limit=10)).train.labels) == 10
    assert load(data_config("digits", classes=("8",))).classes == ["8"]
    with pytest.raises(RecipeError) as error:
        load(data_config("digits", classes=("3", "ten")))
    assert error.value.value == ["ten"]


def test_only_some_of_cifar10(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    checksum = make_cifar10_archive(path, per_batch=20)
    found = load(data_config("cifar10", path=path, checksum=checksum, classes=("dog", "cat")))
    assert found.classes == ["cat", "dog"]
    assert len(found.train.images) == 20 and len(found.test.images) == 4
    brightness = [found.train.images[found.train.labels == label].mean() for label in (0, 1)]
    assert brightness == pytest.approx([20 * 3 + 14.5, 20 * 5 + 14.5], abs=1)  # each class has its own in this archive


def test_only_some_folders_are_decoded(tmp_path, monkeypatch):
    from pipeline.data.sources import decode

    read = []
    original = decode.decode
    monkeypatch.setattr(decode, "decode", lambda name, *rest: read.append(name) or original(name, *rest))
    root = make_folder(
        tmp_path / "pets",
        {f"{kind}/{i}.png": encoded(coloured(i)) for kind in ("ant", "cat", "dog") for i in range(10)},
    )
    found = load(data_config("images", path=root, classes=("dog", "ant")))
    assert found.classes == ["ant", "dog"] and sorted(set(found.train.labels)) == [0, 1]
    assert len(read) == 20 and not any("cat" in name for name in read)
    bare = make_folder(tmp_path / "bare", {f"{i}.png": encoded(coloured(i)) for i in range(10)})
    with pytest.raises(RecipeError):
        load(data_config("images", path=bare, classes=("dog",)))


def test_networks_are_not_told_the_classes_but_scores_know_them(tmp_path):
    made = job(tmp_path, "data")
    made.config = Data(source="digits", limit=30, labels=False)
    result = stage.run(made)
    found = ImageSet.open(made.out / stage.IMAGES)
    assert result.classes is None and found.classes is None and found.train.labels is None
    assert found.originals.classes == [str(i) for i in range(10)]
    np.testing.assert_array_equal(found.originals.train.labels, load(made.config).train.labels)
    np.testing.assert_array_equal(found.originals.train.images, found.train.images)


def test_an_autoencoder_is_part_of_the_identity_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED_SECONDS", -1e6)
    folder = make_folder(tmp_path / "vae", {name: b"one" for name in digest.AUTOENCODER})
    images = make_folder(tmp_path / "set", {"a.png": b"x"})

    def found(folder, **changes):
        return source_digest(data_config(**{"source": "digits", "autoencoder": folder, **changes}), tmp_path / "cache")

    first = found(folder)
    make_folder(tmp_path / "copy", {name: b"one" for name in digest.AUTOENCODER} | {"readme.md": b"x"})
    assert first.startswith("sha256:") and found(tmp_path / "copy") == first
    assert (
        len(
            {first, found(None), found(folder, source="images", path=images), found(None, source="images", path=images)}
        )
        == 4
    )
    (folder / digest.AUTOENCODER[1]).write_bytes(b"two")
    assert found(folder) != first
    assert of(autoencoder=folder) == DIGITS  # where it lies does not count
    (folder / digest.AUTOENCODER[1]).unlink()
    with pytest.raises(DataError) as error:
        found(folder)
    assert error.value.value == str(folder)


def test_a_checksum_is_of_the_images_alone(tmp_path):
    folder = make_folder(tmp_path / "vae", {name: b"one" for name in digest.AUTOENCODER})
    root = make_folder(tmp_path / "set", {f"{i}.png": encoded(coloured(i)) for i in range(10)})
    checksum = digest.images_digest(data_config("images", path=root))
    assert len(load(data_config("images", path=root, checksum=checksum, autoencoder=folder)).train.images) == 8


def test_new_settings_keep_old_fingerprints():
    neutral = {"layout": "auto", "names_encoding": None, "background": "white", "small_classes": "refuse"}
    assert of(**neutral) == DIGITS != of(small_classes="drop")


@pytest.mark.parametrize(
    "changes", [{"layout": "flat"}, {"names_encoding": "cp932"}, {"background": "black"}, {"background": "#12345"}]
)
def test_settings_of_own_images_are_refused_elsewhere(changes):
    with pytest.raises(ValueError):
        Data(source="digits", **changes)
    if "#12345" not in changes.values():
        Data(source="images", path="x", **changes)


def test_an_encoding_has_one_name_and_exists():
    assert Data(source="images", path="x", names_encoding="Shift-JIS").names_encoding == "shift_jis"
    for wrong in ("klingon", "hex", "rot13", "undefined", "utf-16", "", "a\0b"):
        with pytest.raises(ValueError, match="names_encoding"):
            Data(source="images", path="x", names_encoding=wrong)


def test_a_path_may_start_at_home_and_must_be_text(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = Data(source="images", path="~/photos", autoencoder="~/vae")
    assert (data.path, data.autoencoder) == (tmp_path / "photos", tmp_path / "vae")
    assert Reference(extractor="inception", weights="~/w.pth").weights == tmp_path / "w.pth"
    loss = LpipsHuber(features="~/vgg.pth", linear="~/lin.pth")
    assert (loss.features, loss.linear) == (tmp_path / "vgg.pth", tmp_path / "lin.pth")
    for wrong in (os.fsdecode(b"/data/caf\xe9"), "~nobody-of-this-name/x"):
        with pytest.raises(ValueError):
            Data(source="images", path=wrong)


def test_class_names_are_one_name_in_both_forms_of_unicode(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert Data(source="digits", classes=[nfd]).classes == (nfc,)
    files = {f"{kind}/{i}.png": encoded(coloured(i)) for kind in (nfd, "tea", "milk") for i in range(5)}
    config = data_config("images", path=make_folder(tmp_path / "set", files), classes=(nfc, "tea"))
    assert load(config).classes == [nfc, "tea"]


def test_the_data_stage_reports_what_it_left_out(tmp_path, caplog):
    files = {f"{i}.png": encoded(coloured(i)) for i in range(10)} | {f"{i}.txt": b"" for i in range(7)}
    folder = make_folder(tmp_path / "set", files | {".hidden": b"", "x.jpg": encoded(coloured(99), "gif")})
    work = job(tmp_path / "work", "data")
    work.config = Data(source="images", path=folder)
    result = stage.run(work)
    assert [(kind.kind, kind.count, len(kind.names)) for kind in result.left_out] == [(".txt", 7, 5), ("hidden", 1, 1)]
    assert len(result.notes) == 1 and result.train + result.test == 11
    assert {record.levelname for record in caplog.records} >= {"WARNING"}
    assert type(result).model_validate_json(result.model_dump_json()) == result
