"""Images of the user: every layout, archive and colour that is promised, and one clear refusal for each that is not."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import decode, load, members
from storage.errors import DataError, RecipeError
from tests.pipeline.data.sources.formats import coloured, data_config, encoded, make_folder, make_tar, make_zip


def files(layout: str = "classes", n: int = 10) -> dict[str, bytes]:
    names = {
        "classes": [f"{'cat' if i % 2 else 'dog'}/{i:02d}.png" for i in range(n)],
        "flat": [f"{i:02d}.png" for i in range(n)],
        "split": [f"{'test' if i < 4 else 'train'}/{'cat' if i % 2 else 'dog'}/{i:02d}.png" for i in range(n)],
        "split without classes": [f"{'test' if i < 4 else 'train'}/{i:02d}.png" for i in range(n)],
    }[layout]
    return {name: encoded(coloured(i)) for i, name in enumerate(names)}


def read(path, tmp_path, **changes):
    return load(data_config("images", path=path, **changes), tmp_path / "cache")


def pixels(split) -> set[bytes]:
    return {image.transpose(1, 2, 0).tobytes() for image in split.images}


EVERY = {coloured(i).tobytes() for i in range(10)}


def test_classes_from_folders(tmp_path):
    data = read(make_folder(tmp_path / "pets", files()), tmp_path)
    assert (data.name, data.levels, data.classes) == ("pets", 256, ["cat", "dog"])
    assert data.train.images.shape == (8, 3, 8, 8) and data.test.images.shape == (2, 3, 8, 8)
    assert data.test.labels.tolist() == [0, 1]  # stratified
    assert pixels(data.train) | pixels(data.test) == EVERY
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            number = next(i for i in range(10) if (coloured(i).transpose(2, 0, 1) == image).all())
            assert data.classes[label] == ("cat" if number % 2 else "dog")
    again = read(tmp_path / "pets", tmp_path)
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_without_classes(tmp_path):
    data = read(make_folder(tmp_path / "set", files("flat")), tmp_path)
    assert data.classes is None and data.train.labels is None and len(data.train.images) == 8
    one = {f"only/{name}": content for name, content in files("flat").items()}
    assert read(make_folder(tmp_path / "one", one), tmp_path).classes is None  # one folder tells nothing apart


@pytest.mark.parametrize("layout", ["split", "split without classes"])
def test_split_from_folders(tmp_path, layout):
    data = read(make_folder(tmp_path / "set", files(layout)), tmp_path, test_fraction=0.9, seed=7)
    assert pixels(data.test) == {coloured(i).tobytes() for i in range(4)} and len(data.train.images) == 6
    assert (data.test.labels is None) == (layout != "split")


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tar.xz", "set.tar.bz2"])
@pytest.mark.parametrize("wrapper", ["", "./", "outer/inner/"])
def test_archives_equal_the_folder(tmp_path, name, wrapper):
    expected = read(make_folder(tmp_path / "set", files("split")), tmp_path)
    extra = {
        "__MACOSX/x/._a.png": b"",
        ".hidden/a.png": b"",
        f"{wrapper}train/.a.png": b"",
        f"{wrapper}readme.txt": b"x",
    }
    packed = {**{wrapper + k: v for k, v in reversed(files("split").items())}, **extra}
    (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, packed)
    data = read(tmp_path / name, tmp_path)
    assert data.name == "set" and data.classes == expected.classes
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(data, split).images, getattr(expected, split).images)
        np.testing.assert_array_equal(getattr(data, split).labels, getattr(expected, split).labels)


def test_numbered_folders_get_their_numbers(tmp_path):
    some = {f"{i}/{j}.png": encoded(coloured(i)) for i in range(11) for j in range(2)}
    data = read(make_folder(tmp_path / "set", some), tmp_path, test_fraction=0.5)
    assert data.classes == [str(i) for i in range(11)]


def test_limit_decodes_no_more_than_it_keeps(tmp_path, monkeypatch):
    decoded = []
    original = decode.decode
    monkeypatch.setattr(decode, "decode", lambda name, *rest: decoded.append(name) or original(name, *rest))
    data = read(make_folder(tmp_path / "set", files("split")), tmp_path, limit=3)
    assert data.train.labels.tolist() == [0, 1, 0] and data.test.labels.tolist() == [0, 1, 0]
    assert len(decoded) == 6


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "jpeg"])
def test_formats_and_grey(tmp_path, kind):
    grey = np.full((8, 8), 77, np.uint8)
    lossless = {"lossless": True} if kind == "webp" else {}
    some = {
        f"{i}.{kind.upper()}": encoded(grey if kind != "webp" else np.stack([grey] * 3, -1), kind, **lossless)
        for i in range(5)
    }
    data = read(make_folder(tmp_path / "set", some), tmp_path)
    assert data.train.images.shape == (4, 3 if kind == "webp" else 1, 8, 8)  # WebP knows no grey
    assert (data.train.images == 77).all()


def test_grey_among_coloured_becomes_coloured(tmp_path):
    grey = coloured(0)[..., 0]
    some = {"train/0.png": encoded(grey), "train/1.png": encoded(coloured(1)), "test/a.png": encoded(grey)}
    data = read(make_folder(tmp_path / "set", some), tmp_path)
    np.testing.assert_array_equal(data.train.images[0], np.stack([grey] * 3))
    np.testing.assert_array_equal(data.train.images[1], coloured(1).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("colour", "rgb"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#102030", (16, 32, 48))]
)
def test_transparent_pixels_show_the_background(tmp_path, colour, rgb):
    alpha = np.full((8, 8, 1), 255, np.uint8)
    opaque = np.concatenate([coloured(1), alpha], 2)
    alpha[:4], alpha[4] = 0, 128
    holed = np.concatenate([coloured(1), alpha], 2)
    grey = np.concatenate([coloured(1)[..., :1], alpha], 2)
    palette = Image.fromarray(np.full((8, 8, 3), (9, 8, 7), np.uint8)).convert("P", palette=Image.ADAPTIVE)
    stream = io.BytesIO()
    palette.save(stream, "png", transparency=0)
    some = [encoded(opaque), encoded(holed), encoded(grey), stream.getvalue()]
    files = {f"train/{number}.png": data for number, data in enumerate(some)} | {"test/a.png": encoded(coloured(0))}
    images = read(make_folder(tmp_path / "set", files), tmp_path, background=colour).train.images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(images[0], coloured(1))  # opaque: unchanged
    half = (coloured(1)[4] * 128.0 + np.array(rgb) * 127.0) / 255
    assert (images[1][:4] == rgb).all() and (images[1][5:] == coloured(1)[5:]).all()
    assert abs(images[1][4] - half).max() <= 1
    assert (images[2][:4] == rgb).all() and (images[2][5:] == coloured(1)[5:, :, :1]).all()
    assert (images[3] == rgb).all()


def test_a_background_that_is_no_colour(tmp_path):
    with pytest.raises(RecipeError) as error:
        read(make_folder(tmp_path / "set", files()), tmp_path, background="mist")
    assert error.value.value == "mist"


def test_size_crops_the_centre_and_resizes(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200  # the central square
    tall = wide.transpose(1, 0, 2)
    some = {f"train/{i}.png": encoded(a) for i, a in enumerate([wide, tall, wide[:, 4:12]])} | {
        "test/0.png": encoded(wide)
    }
    folder = make_folder(tmp_path / "set", some)
    for size in (4, 8, 20):
        data = read(folder, tmp_path, size=size)
        assert data.train.images.shape == (3, 3, size, size) and (data.train.images == 200).all()
    noise = make_folder(tmp_path / "noise", files())
    assert pixels(read(noise, tmp_path, size=8).train) <= EVERY  # nothing to do, nothing done


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    picture = np.zeros((8, 8), np.uint8)
    picture[0] = 255  # a bright top goes to the right
    folder = make_folder(tmp_path / "set", {f"{i}.png": encoded(picture, exif=exif) for i in range(5)})
    np.testing.assert_array_equal(read(folder, tmp_path).train.images[0, 0], np.rot90(picture, -1))


def refused(value, tmp_path, some, kind=DataError, **changes):
    """Refused with this in the value that the error names."""
    path = some if hasattr(some, "parts") else make_folder(tmp_path / "set", some)
    with pytest.raises(kind) as error:
        read(path, tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert value in str(error.value.value)


def test_sizes_that_differ_name_a_file_of_each(tmp_path):
    odd = {f"odd{number}.png": encoded(coloured(0, 9, 9)) for number in range(2)}
    some = {f"train/{name}": data for name, data in {**files("flat"), **odd}.items()}
    refused(
        "11 of 8 x 8 (test/a.png); 2 of 9 x 9 (train/odd0.png)", tmp_path, some | {"test/a.png": encoded(coloured(1))}
    )


def test_not_square(tmp_path):
    refused("odd.png: 9 x 8", tmp_path, {**files("flat"), "odd.png": encoded(coloured(0, 8, 9))})


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(coloured(0))[:-30]])
def test_an_image_that_does_not_decode_is_named(tmp_path, content):
    refused("bad.png", tmp_path, {**files("flat"), "bad.png": content})


def test_deep_images(tmp_path):
    deep = encoded(np.full((8, 8), 40000, np.uint16))
    refused("deep.png: mode I;16", tmp_path, {**files("flat"), "deep.png": deep})


def png_claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + encoded(coloured(0))[33:]
    )


@pytest.mark.parametrize("side", [8193, 12000, 60000])  # ours, Pillow's warning, Pillow's error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs(tmp_path, side):
    refused("bomb.png", tmp_path, {**files("flat"), "bomb.png": png_claiming(side, side)}, size=8)


def test_archive_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_BYTES", 1 << 20)
    big = {**files("flat"), "big.png": bytes((1 << 20) + 1)}
    refused("big.png, 1048577 bytes", tmp_path, make_zip(tmp_path / "a.zip", big))
    make_tar(tmp_path / "a.tar.gz", big)
    refused("big.png, 1048577 bytes", tmp_path, tmp_path / "a.tar.gz")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_the_archive(tmp_path, name, kind):
    path = tmp_path / f"set.{kind}"
    (make_zip if kind == "zip" else make_tar)(path, {**files("flat"), name: encoded(coloured(0))})
    refused("evil.png", tmp_path, path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    link = tarfile.TarInfo()
    link.type, link.linkname = kind, "/etc/passwd"
    make_tar(tmp_path / "set.tar", {**files("flat"), "link.png": link})
    refused("link.png, a link", tmp_path, tmp_path / "set.tar")


def test_links_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "set.zip", files("flat"))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refused("link.png, a link", tmp_path, path)


def test_links_in_a_folder(tmp_path):
    folder = make_folder(tmp_path / "set", files("flat"))
    outside = make_folder(tmp_path / "outside", {"a.png": encoded(coloured(0))})
    (folder / "linked.png").symlink_to(outside / "a.png")
    assert len(read(folder, tmp_path).train.images) == 9  # one's own links to files are one's own business
    (folder / "more").symlink_to(outside)
    refused("more", tmp_path, folder)
    (folder / "more").unlink()
    (outside / "a.png").unlink()
    refused("linked.png, a link to", tmp_path, folder)
    (folder / "linked.png").unlink()
    os.mkfifo(folder / "pipe.png")
    refused("pipe.png", tmp_path, folder)


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tar.xz"])
def test_damaged_archives(tmp_path, name):
    path = tmp_path / name
    (make_zip if name.endswith("zip") else make_tar)(path, files("flat"))
    whole = path.read_bytes()
    # A plain tar may end inside a header or after a member, and Python's tarfile would not mind.
    cuts = (
        [0, 100, len(whole) // 2, len(whole) - 30]
        if name != "set.tar"
        else [0, 100, 512 * 2, 512 * 2 + 100, 512 * 2 - 40]
    )
    for cut in cuts:
        path.write_bytes(whole[:cut])
        refused(name, tmp_path, path)


def test_encrypted_and_twice(tmp_path):
    path = make_zip(tmp_path / "set.zip", files("flat"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the first member's flag of encryption, in the directory at the end
    data[6] |= 1
    path.write_bytes(data)
    refused("encrypted", tmp_path, path)
    make_tar(tmp_path / "twice.tar", {**files("flat"), "./00.png": encoded(coloured(3))})
    refused("00.png", tmp_path, tmp_path / "twice.tar")


def test_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("no files", tmp_path, tmp_path / "empty")
    refused(".txt: a.txt", tmp_path, {"a.txt": b""})
    refused("absent", tmp_path, tmp_path / "absent")
    with pytest.raises(RecipeError):
        load(data_config("images"), tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "value"),
    [
        ("classes", "loose.png", "loose.png and cat"),
        ("split", "val/cat/a.png", "test, train, val"),
        ("split", "loose.png", "test, train, loose.png"),
        ("split", "test/bird/a.png", "1 of 3 classes without: bird"),
        ("split", "train/a.png", "train/a.png and test/"),
    ],
)
def test_folders_of_two_readings(tmp_path, layout, name, value):
    refused(value, tmp_path, {**files(layout), name: encoded(coloured(0))})


def test_too_few(tmp_path):
    refused("2 and 0", tmp_path, files("flat", 2))


def test_checksum(tmp_path):
    path = tmp_path / "set.tar"
    checksum = make_tar(path, files())
    assert len(read(path, tmp_path, checksum=checksum).train.images) == 8
    refused(checksum, tmp_path, path, checksum="sha256:" + "00" * 32)


def test_a_source_that_changes_while_it_is_read(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "set", files("flat"))
    whole = members.Members.read
    monkeypatch.setattr(members.Members, "read", lambda self, names: list(whole(self, names))[1:])
    refused("9 of 10 files", tmp_path, folder)
