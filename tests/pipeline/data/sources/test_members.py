"""Members of folders and archives: none is lost, whatever its name, kind or place; what is left out is listed."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sources import decode, load, remarks, source_digest
from pipeline.data.sources.kinds import BY_EXTENSION, FORMATS, format_of
from pipeline.data.sources.members import HIDDEN, STORE, walk
from pipeline.data.sources.opening import open_members
from storage.errors import DataError
from storage.store import Store
from tests.pipeline.data.sources.formats import coloured, data_config, encoded, make_folder, make_tar, make_zip

RASTER_NO_MORE = {"EPS", "WMF", "MPEG", "FLI", "BUFR", "GRIB", "HDF5", "FITS", "IPTC"}  # drawings, films, containers
PNG = encoded(coloured(0))


def read(path, tmp_path, **changes):
    return load(data_config("images", path=path, **changes), tmp_path / "cache")


def ten(suffix: str = ".png", content: bytes = PNG) -> dict[str, bytes]:
    return {f"{number:02d}{suffix}": content for number in range(10)}


def said(data) -> list[str]:
    """The notes, apart from those on copies: one picture serves for all files here."""
    return [note for note in data.notes if not note.startswith((remarks.LEAKED, remarks.TORN))]


def test_every_raster_format_of_pillow_is_an_image():
    from PIL import Image

    Image.init()
    theirs = {extension: name for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    assert {extension for extension, name in theirs.items() if name not in RASTER_NO_MORE} <= set(BY_EXTENSION)
    assert set(FORMATS) <= set(Image.OPEN)


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "DDS", "SGI", "TGA", "PCX"]
)
def test_formats_by_extension_and_by_content(tmp_path, kind):
    content = encoded(coloured(0, 16, 16), kind)
    for extension in FORMATS[kind]:
        if extension not in (".pgm", ".pbm", ".pfm", ".bw", ".rgba"):
            folder = make_folder(tmp_path / extension[1:], ten(extension.upper(), content))
            assert len(read(folder, tmp_path).train.images) == 8
    if kind in ("TGA", "PCX"):
        assert format_of(content[:32]) is None  # nothing in them says what they are
        return
    assert format_of(content[:32]) == kind
    folder = make_folder(tmp_path / "unknown", ten(".dat", content) | ten("", content))
    assert len(read(folder, tmp_path).train.images) == 16


def test_content_wins_over_a_wrong_extension_and_says_so(tmp_path):
    gif = encoded(coloured(1), "gif")
    data = read(make_folder(tmp_path / "set", ten() | {"99.jpg": gif}), tmp_path)
    assert len(data.train.images) + len(data.test.images) == 11
    (note,) = said(data)
    assert note.startswith(remarks.MISNAMED) and "99.jpg (GIF)" in note


def test_all_that_cannot_be_used_is_listed(tmp_path):
    bad = {"a.png": b"", "b.jpg": b"<html>", "c.png": PNG[:-30], "d.png": encoded(np.zeros((8, 8), np.uint16))}
    with pytest.raises(DataError) as error:
        read(make_folder(tmp_path / "set", ten() | bad), tmp_path)
    assert error.value.value.startswith("4 of 14") and all(name in error.value.value for name in bad)


def test_what_is_left_out_is_counted_by_kind(tmp_path):
    other = {"readme.TXT": b"x", "a.txt": b"", "b/c.heic": b"\0\0\0\x18ftypheic", "LICENSE": b"MIT", "s.svg": b"<svg>"}
    hidden = {".a.png": PNG, ".git/x/y.png": PNG, "__MACOSX/z.png": PNG}
    data = read(make_folder(tmp_path / "set", ten() | other | hidden), tmp_path)
    counts = {kind: len(names) for kind, names in data.left_out.items()}
    assert counts == {HIDDEN: 3, ".txt": 2, ".heic": 1, "no extension": 1, ".svg": 1}
    make_zip(tmp_path / "set.zip", ten() | other | hidden)
    packed = read(tmp_path / "set.zip", tmp_path)
    assert {kind: sorted(names) for kind, names in packed.left_out.items()} == {
        kind: sorted(names) for kind, names in data.left_out.items()
    }


def test_a_store_is_never_data(tmp_path):
    folder = make_folder(tmp_path / "set", ten())
    before = source_digest(data_config("images", path=folder), tmp_path / "cache")
    for home in ("out", "deep/er/.flowctl"):
        Store(folder / home).prepare()
        make_folder(folder / home, {"artifacts/data/x/samples.png": PNG, "monitor/a.png": PNG})
    data = read(folder, tmp_path)
    assert len(data.train.images) == 8 and data.classes is None
    assert sorted(data.left_out[STORE]) == ["deep/er/.flowctl", "out"]
    assert source_digest(data_config("images", path=folder), tmp_path / "cache") == before
    for inside in ("out", "out/artifacts"):
        for use in (read, lambda path, place: source_digest(data_config("images", path=path), place)):
            with pytest.raises(DataError):
                use(folder / inside, tmp_path)


@pytest.mark.parametrize("pack", ["zip", "tar"])
@pytest.mark.parametrize("home", ["out", "deep/er/store"])
def test_a_store_in_an_archive_is_no_data_either(tmp_path, pack, home):
    folder = make_folder(tmp_path / "set", {f"{kind}/{number}.png": PNG for kind in "ab" for number in range(5)})
    Store(folder / home).prepare()
    make_folder(folder / home, {"artifacts/data/x/samples.png": PNG, "monitor/a.png": PNG})
    make_folder(folder, {"a/artifacts/1.png": PNG})  # a folder of this name alone is no store
    path = Path(shutil.make_archive(str(tmp_path / "set"), pack, folder))
    data = read(path, tmp_path, layout="classes")
    assert data.classes == ["a", "b"] and len(data.train.images) + len(data.test.images) == 11
    assert data.left_out[STORE] == [home]


class Unmarked(zipfile.ZipInfo):
    """A member whose name is these bytes, not marked as UTF-8."""

    def __init__(self, name: bytes) -> None:
        super().__init__(name.decode("cp437"))
        self.raw = name

    def _encodeFilenameFlags(self):
        return self.raw, 0


def zip_of(path, names: list[bytes], content: bytes = PNG):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(Unmarked(name), content)
    return path


@pytest.mark.parametrize("encoding", ["cp932", "gbk", "big5", "cp866", "latin-1"])
def test_names_in_a_zip_that_are_not_utf8(tmp_path, encoding):
    words = {"cp932": "表ソ", "gbk": "猫狗", "big5": "功許", "cp866": "кот", "latin-1": "café"}[encoding]
    names = [f"{words}/{number}.png" for number in range(5)] + [f"dog/{number}.png" for number in range(5)]
    path = zip_of(tmp_path / "set.zip", [name.encode(encoding) for name in names])
    stated = read(path, tmp_path, names_encoding=encoding)
    assert sorted(stated.classes) == sorted([words, "dog"]) and len(stated.train.images) == 8
    assumed = read(path, tmp_path)  # garbled, but nothing is lost, and it is said
    assert len(assumed.classes) == 2 and len(assumed.train.images) == 8
    assert len(said(assumed)) == len(said(stated)) == 1
    if encoding in ("cp932", "gbk"):
        with pytest.raises(DataError):
            read(path, tmp_path, names_encoding="ascii")


def test_a_zip_that_says_utf8_is_not_asked(tmp_path):
    path = make_zip(tmp_path / "set.zip", {f"{kind}/{n}.png": PNG for kind in ("猫", "犬") for n in range(5)})
    data = read(path, tmp_path, names_encoding="cp866")
    assert sorted(data.classes) == sorted(["猫", "犬"]) and not said(data)


def test_info_zips_unicode_names(tmp_path):
    import zlib

    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10):
            word = "表" if number % 2 else "dog"
            raw = f"{word}/{number}.png".encode("cp932")
            info = Unmarked(raw)
            unicode = b"\x01" + zlib.crc32(raw).to_bytes(4, "little") + f"{word}/{number}.png".encode()
            info.extra = b"\x75\x70" + len(unicode).to_bytes(2, "little") + unicode
            archive.writestr(info, PNG)
    assert sorted(read(path, tmp_path).classes) == ["dog", "表"]


@pytest.mark.parametrize(
    "written, classes",
    [(["AC\\DC/{}.png", "dog/{}.png"], ["AC\\DC", "dog"]), (["cat\\{}.png", "dog\\{}.png"], ["cat", "dog"])],
)
def test_a_backslash_in_a_tar_separates_where_no_slash_does(tmp_path, written, classes):
    path = tmp_path / "set.tar"
    make_tar(path, {name.format(number): PNG for name in written for number in range(5)})
    assert sorted(read(path, tmp_path).classes) == classes


def test_hard_links_in_a_tar_are_files(tmp_path):
    folder = make_folder(tmp_path / "set", ten())
    for number in range(5):
        os.link(folder / f"{number:02d}.png", folder / f"more{number}.png")
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "set")
        assert any(info.islnk() for info in archive.getmembers())
    expected, data = read(folder, tmp_path), read(path, tmp_path)
    assert len(data.train.images) == 12
    np.testing.assert_array_equal(data.train.images, expected.train.images)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_joined_archives_are_refused(tmp_path, kind):
    """Readers find the first tar alone, and the last zip."""
    pack = make_zip if kind == "zip" else make_tar
    pack(tmp_path / f"one.{kind}", ten())
    pack(tmp_path / f"two.{kind}", {f"b{name}": content for name, content in ten().items()})
    both = tmp_path / f"both.{kind}"
    both.write_bytes((tmp_path / f"one.{kind}").read_bytes() + (tmp_path / f"two.{kind}").read_bytes())
    with pytest.raises(DataError) as error:
        read(both, tmp_path)
    assert "joined" in error.value.value
    if kind == "zip":
        (tmp_path / "self.zip").write_bytes(b"#!/bin/sh\nexit\n" + (tmp_path / "one.zip").read_bytes())
        assert len(read(tmp_path / "self.zip", tmp_path).train.images) == 8


def test_undecodable_names_are_refused_at_the_start(tmp_path):
    folder = make_folder(tmp_path / "set", ten())
    place = os.fsencode(folder) + b"/caf\xe9"
    os.mkdir(place)
    with open(place + b"/menu.txt", "wb"):
        pass
    data = read(folder, tmp_path)  # no image: listed, in a form that can be written
    assert data.left_out[".txt"]
    with open(place + b"/a.png", "wb") as file:
        file.write(PNG)
    with pytest.raises(DataError) as error:
        read(folder, tmp_path)
    assert "caf\\xe9/a.png" in error.value.value
    str(error.value).encode()
    info = tarfile.TarInfo("x")
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        for number in range(10):
            info = tarfile.TarInfo(f"{'café' if number % 2 else 'tea'}/{number}.png")
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    with pytest.raises(DataError):
        read(path, tmp_path)
    assert read(path, tmp_path, names_encoding="latin-1").classes == ["café", "tea"]


def test_a_link_that_leads_nowhere_is_called_that(tmp_path):
    folder = make_folder(tmp_path / "set", ten())
    (folder / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError) as error:
        read(folder, tmp_path)
    assert "x.png, a link to" in error.value.value and "gone.png" in error.value.value


def test_nfc_and_nfd_have_one_digest(tmp_path):
    import unicodedata

    digests = set()
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "café")
        folder = make_folder(tmp_path / form, {f"{name}/{n}.png": PNG for n in range(5)} | {"b/1.png": PNG})
        digests.add(source_digest(data_config("images", path=folder), tmp_path / "cache"))
    assert len(digests) == 1


LETTERS = st.text("aB1é猫 .\\_-", min_size=1, max_size=6).filter(lambda name: name.strip(". \\"))
NAMES = st.tuples(
    st.lists(LETTERS.map(lambda name: name.strip()), max_size=3),
    LETTERS.map(lambda name: name.replace("\\", "x").strip()),
    st.sampled_from([".png", ".JPG", ".jfif", ".gif", ".dat", "", ".txt", ".heic"]),
).map(lambda parts: "/".join([*parts[0], parts[1] + parts[2]]))
IMAGE = {".png": "png", ".jpg": "jpeg", ".jfif": "jpeg", ".gif": "gif", ".dat": "png", "": "bmp"}


@settings(max_examples=60, deadline=None)
@given(names=st.sets(NAMES, max_size=12), form=st.sampled_from(["folder", "zip", "tar", "tar.gz"]))
def test_each_file_is_an_image_or_listed(tmp_path_factory, names, form):
    """Over trees of any depth and names: what goes in comes out as an image, or in the list of what was left out."""
    root = tmp_path_factory.mktemp("any")
    names = {name.replace("\\", "_") for name in names}
    # No name is a folder of another.
    names = {name for name in names if not any(other.startswith(name + "/") for other in names)}
    files = {f"one/{number}.png": PNG for number in range(3)}
    for name in names:
        extension = next(
            (end for end in (".png", ".jpg", ".jfif", ".gif", ".dat", ".txt", ".heic") if name.lower().endswith(end)),
            "",
        )
        files[name] = encoded(coloured(1), IMAGE[extension]) if extension in IMAGE else b"words"
    if form == "folder":
        path = make_folder(root / "set", files)
    else:
        path = root / f"set.{form}"
        (make_zip if form == "zip" else make_tar)(path, files)
    data = read(path, root, layout="flat")
    left_out = Counter(name for names in data.left_out.values() for name in names)
    assert max(left_out.values(), default=1) == 1 and set(left_out) <= set(files)
    assert len(data.train.images) + len(data.test.images) + len(left_out) == len(files)
    members = open_members(path)
    assert set(members.images) | set(left_out) == set(files) and not set(members.images) & set(left_out)
    assert dict(members.read(set(members.images))) == {name: files[name] for name in members.images}
    for name in members.images:
        assert not any(part.startswith(".") for part in name.split("/"))


@pytest.mark.parametrize("last", ["test.zip", "features.npz"])
def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path, last):
    """A zip is sought at the end of a file, a tar at its beginning."""
    images = {f"{name}/{number}.png": encoded(coloured(number)) for name in ("cat", "dog") for number in range(4)}
    inner = make_zip(tmp_path / "inner.zip", {"fox/0.png": encoded(coloured(9)), "fox/1.png": encoded(coloured(10))})
    make_tar(tmp_path / "set.tar", images | {f"zz/{last}": inner.read_bytes()})
    assert read(tmp_path / "set.tar", tmp_path).classes == ["cat", "dog"]


def test_large_files_wait_in_small_batches(monkeypatch):
    """Reading is faster than decoding: what waits is bounded in bytes too."""
    limit, read_ahead = 10_000, []
    monkeypatch.setattr(decode, "_BATCH_BYTES", limit)
    sizes = [9_000, 4_000] * 4 + [1] * 40
    batches = list(decode._batches((str(number), bytes(size)) for number, size in enumerate(sizes)))
    assert [name for batch in batches for name, _ in batch] == [str(number) for number in range(48)]
    for batch in batches:
        held = [len(data) for _, data in batch]
        assert len(batch) <= 16 and sum(held[:-1]) < limit
        read_ahead.append(sum(held))
    assert max(read_ahead) < limit + 9_000


def test_folders_deeper_than_python_walks_are_refused_as_such(tmp_path):
    folders = [tmp_path]
    for _ in range(1_200):
        folders.append(folders[-1] / "a")
        os.mkdir(folders[-1])
    try:
        with pytest.raises(DataError) as raised:
            list(walk(tmp_path))
    finally:
        for folder in folders[:0:-1]:  # the removal of old temporary folders walks too
            os.rmdir(folder)
    assert isinstance(raised.value.__cause__, RecursionError)
