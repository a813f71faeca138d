"""What the folders of strangers hold: it is read as meant, or a note or an error says how it was taken."""

import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import decode, load, remarks, source_digest
from pipeline.data.sources.members import HIDDEN
from pipeline.reporting.pictures import png
from storage.errors import DataError
from tests.pipeline.data.sources.formats import coloured, data_config, encoded, make_folder, make_tar, make_zip


def pictures(*folders, count=5, side=8):
    """Different images in each folder."""
    return {
        f"{folder}/{number}.png".lstrip("/"): encoded(coloured(100 * place + number, side, side))
        for place, folder in enumerate(folders or ("",))
        for number in range(count)
    }


def read(folder, files, **changes):
    return load(data_config("images", path=make_folder(folder / "set", files), **changes), folder / "cache")


def notes(data, remark):
    return [note for note in data.notes if note.startswith(remark)]


def animated(kind):
    stream, frames = io.BytesIO(), [Image.fromarray(coloured(number)) for number in (50, 51, 52)]
    frames[0].save(
        stream, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "webp" else {})
    )
    return stream.getvalue()


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def deep_png(pixels):
    """A PNG of 16 bits to a channel, which Pillow cannot write; pixels (H, W, 3) uint16."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def deep_tiff(pixels):
    """A TIFF of 16 bits to a channel whose bands lie apart; pixels (H, W, 3) uint16."""
    height, width, _ = pixels.shape
    size, lists = 2 * height * width, 8 + 2 + 10 * 12 + 4  # lists of three numbers follow the directory
    values = {256: width, 257: height, 258: lists, 259: 1, 262: 2, 273: lists + 6, 277: 3, 278: height, 279: lists + 18}
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag in (258, 273, 279) else 1, value)
        for tag, value in {**values, 284: 2}.items()
    )
    offsets = [lists + 30 + band * size for band in range(3)]
    three = struct.pack("<3H6I", 16, 16, 16, *offsets, size, size, size)
    bands = pixels.transpose(2, 0, 1).astype("<u2").tobytes()
    return b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + three + bands


def deep_sgi(pixels):
    """An SGI file of 16 bits to a channel, the last row first and the channels apart."""
    height, width, channels = pixels.shape
    head = struct.pack(">hBBHHHH", 474, 0, 2, 3, width, height, channels)
    return head.ljust(512, b"\0") + pixels[::-1].transpose(2, 0, 1).astype(">u2").tobytes()


def deep_dds(pixels):
    """A DDS file with 10 bits to a channel; pixels (H, W, 3) uint16."""
    height, width, _ = pixels.shape
    masks = (0x3FF, 0x3FF << 10, 0x3FF << 20, 0)
    head = struct.pack("<7I", 124, 0x1007, height, width, 4 * width, 0, 1) + bytes(44)
    head += struct.pack("<4I4I5I", 32, 0x40, 0, 32, *masks, 0x1000, 0, 0, 0, 0)
    red, green, blue = (pixels[..., channel].astype("<u4") >> 6 for channel in range(3))
    return b"DDS " + head + (red | green << 10 | blue << 20).astype("<u4").tobytes()


def deep_ico(pixels):
    """An icon of one PNG."""
    png = deep_png(pixels)
    height, width, _ = pixels.shape
    return struct.pack("<3H4B2H2I", 0, 1, 1, width, height, 0, 0, 1, 48, len(png), 22) + png


def deep_icns(pixels):
    """An icon of one PNG, of 32 x 32 pixels whatever the number given."""
    png = deep_png(np.resize(pixels, (32, 32, 3)))
    return b"icns" + struct.pack(">I4sI", len(png) + 16, b"icp5", len(png) + 8) + png


def deep_xpm(pixels):
    """An XPM file of two colours with 16 bits to a channel."""
    colours = [b'"%c c #%04X%04X%04X",' % (48 + number, *pixels[0, number].tolist()) for number in range(2)]
    rows = [b'"01010101"'] * 8
    return b"/* XPM */\nstatic char *x[] = {\n" + b"\n".join([b'"8 8 2 1",', *colours, b",\n".join(rows), b"};\n"])


DEEP = {"sgi": deep_sgi, "dds": deep_dds, "ico": deep_ico, "icns": deep_icns, "xpm": deep_xpm}


def deep(kind):
    """A file of 16 bits to a channel; JPEG 2000 and AVIF by their headers alone, since Pillow writes no such file."""
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    if kind in ("png", "tiff"):
        return (deep_png if kind == "png" else deep_tiff)(pixels)
    if kind == "ppm":
        return b"P6 8 8 65535\n" + pixels.astype(">u2").tobytes()
    if kind in DEEP:
        return DEEP[kind](pixels)
    if kind == "plain.ppm":
        return b"P3 8 8 1023\n" + b" ".join(b"%d" % (value >> 6) for value in pixels.flat)
    shallow = bytearray(saved(Image.fromarray(coloured(0)), "jpeg2000" if kind == "jp2" else "avif"))
    if kind == "jp2":
        start = shallow.find(b"\xff\x4f\xff\x51") + 42
        shallow[start : start + 9 : 3] = b"\x0f\x0f\x0f"
    else:
        shallow[shallow.find(b"av1C") + 6] |= 0x40
        start = shallow.find(b"pixi") + 9
        shallow[start : start + 3] = b"\x0a\x0a\x0a"
    return bytes(shallow)


# -- names and folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", ["Cat", "cat ", "CAT"])
def test_classes_that_look_alike_are_named(tmp_path, twin):
    data = read(tmp_path, pictures("cat", twin, "dog"))
    assert len(data.classes) == 3
    (note,) = notes(data, remarks.ALIKE)
    assert repr(twin) in note and "'cat'" in note and "dog" not in note
    assert not notes(read(tmp_path / "other", pictures("cat", "cat2", "dog")), remarks.ALIKE)


@pytest.mark.parametrize(
    ("folders", "empty", "classes"),
    [
        (("cat", "bird"), "dog", ["bird", "cat"]),
        (("cat",), "dog", None),  # one class is none: the images are taken as unlabelled
        (("train/cat", "train/bird", "test/cat", "test/bird"), "train/dog", ["bird", "cat"]),
        (("in/cat", "in/bird"), "in/dog", ["bird", "cat"]),
    ],
)
@pytest.mark.parametrize("packed", ["folder", "zip", "tar"])
@pytest.mark.parametrize("listed", [False, True])  # a folder with other files alone, and one with none
def test_a_class_folder_without_images_is_named(tmp_path, folders, empty, classes, packed, listed):
    files = pictures(*folders) | ({} if listed else {f"{empty}/photo.heic": b"\0\0\0\x18ftypheic"})
    path = tmp_path / f"set.{packed}"
    if packed == "folder":
        make_folder(path, files)
        (path / empty).mkdir(parents=True, exist_ok=True)
    elif packed == "zip":
        make_zip(path, files | ({f"{empty}/": b""} if listed else {}))
    else:
        entry = tarfile.TarInfo(f"./{empty}")
        entry.type = tarfile.DIRTYPE
        make_tar(path, files | ({empty: entry} if listed else {}))
    data = load(data_config("images", path=path), tmp_path / "cache")
    assert data.classes == classes
    (note,) = notes(data, remarks.EMPTY)
    assert note.endswith(f": {empty}")


@pytest.mark.parametrize("folder", ["$RECYCLE.BIN", "@eaDir", "__MACOSX", ".thumbnails", "cat/@eaDir", "#recycle"])
@pytest.mark.parametrize("packed", [False, True])
def test_pictures_of_the_operating_system_are_no_data(tmp_path, folder, packed):
    files = pictures("cat", "dog") | {f"{folder}/thumb.png": encoded(coloured(9))}
    path = make_folder(tmp_path / "set", files)
    if packed:
        make_zip(tmp_path / "set.zip", files)
        path = tmp_path / "set.zip"
    data = load(data_config("images", path=path), tmp_path / "cache")
    assert data.classes == ["cat", "dog"] and len(data.train.images) + len(data.test.images) == 10
    assert data.left_out == {HIDDEN: [f"{folder}/thumb.png"]} and not notes(data, remarks.EMPTY)


def test_a_link_in_a_circle_is_named(tmp_path):
    make_folder(tmp_path / "set", pictures())
    (tmp_path / "set" / "self.png").symlink_to(tmp_path / "set" / "self.png")
    with pytest.raises(DataError) as raised:
        load(data_config("images", path=tmp_path / "set"))
    assert "self.png" in raised.value.value


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["nef", "DNG", "cr2", "arw"])
def test_raw_photographs_are_left_out_and_not_their_thumbnails_taken(tmp_path, extension):
    """They are TIFF files, which Pillow opens at the first image: a small one."""
    before = source_digest(data_config("images", path=make_folder(tmp_path / "set", pictures())))
    data = read(tmp_path, {f"DSC_1.{extension}": encoded(coloured(7), "tiff")})
    assert data.left_out == {f".{extension.lower()}": [f"DSC_1.{extension}"]}
    assert len(data.train.images) + len(data.test.images) == 5
    assert source_digest(data_config("images", path=tmp_path / "set")) == before


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_of_several_images_the_first_is_taken_and_named(tmp_path, kind):
    data = read(tmp_path, pictures() | {f"moving.{kind}": animated(kind)}, test_fraction=0.34)
    (note,) = notes(data, decode.SEVERAL)
    assert note.endswith(": moving." + kind)
    if kind != "gif":  # whose colours are a palette
        first = coloured(50).transpose(2, 0, 1)
        assert any((image == first).all() for image in [*data.train.images, *data.test.images])


def test_photographs_of_several_views_are_photographs(tmp_path):
    assert not read(tmp_path, pictures() | {"phone.jpg": animated("mpo")}).notes


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm", "plain.ppm", "jp2", "avif", *DEEP])
def test_colours_of_more_than_8_bits_are_refused_as_grey_ones_are(tmp_path, kind):
    with pytest.raises(DataError) as raised:
        read(tmp_path, pictures() | {f"deep.{kind}": deep(kind)})
    assert raised.value.value.startswith(f"1 of 6 images: deep.{kind}: ") and "more than 8 bits" in raised.value.value


def test_pillow_reads_the_deep_files_made_here():
    """So that what is refused is their depth."""
    for kind, made in DEEP.items():
        pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
        with Image.open(io.BytesIO(made(pixels))) as image:
            image.load()
        read = np.asarray(image.convert("RGB"))[:8, :8].astype(int)
        if kind not in ("icns", "xpm"):
            assert np.abs(read - (pixels >> 8)).max() <= 1


def test_eight_bits_are_enough(tmp_path):
    for number, kind in enumerate(("tiff", "ppm", "jpeg2000", "avif", "dds", "sgi")):
        files = pictures() | {f"x.{'jp2' if kind == 'jpeg2000' else kind}": saved(Image.fromarray(coloured(9)), kind)}
        assert len(read(tmp_path / str(number), files).train.images) == 5


def test_cmyk_is_named(tmp_path):
    ink = saved(Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK"), "jpeg", quality=100)
    data = read(tmp_path, pictures() | {"ink.jpg": ink}, test_fraction=0.34)
    assert len(notes(data, decode.CMYK)) == 1
    red = np.array([255, 0, 0])[:, None, None]
    assert any(np.abs(image.astype(int) - red).max() < 8 for image in [*data.train.images, *data.test.images])


def test_small_images_that_are_enlarged_are_named(tmp_path):
    data = read(tmp_path, pictures(side=32) | {"small.png": encoded(coloured(9, 8, 40))}, size=16)
    assert notes(data, decode.ENLARGED) == [f"{decode.ENLARGED} (1): small.png"]


@pytest.mark.parametrize("upright", [False, True])
def test_long_images_that_are_cut_are_named(tmp_path, upright):
    strips = {f"{width}.png": coloured(width, 8, width) for width in (32, 33, 100)}
    strips = {name: encoded(strip.transpose(1, 0, 2).copy() if upright else strip) for name, strip in strips.items()}
    data = read(tmp_path, pictures() | strips, size=8)
    assert notes(data, decode.CUT) == [f"{decode.CUT} (2): 100.png, 33.png"]


@pytest.mark.parametrize("side", [1, 2])
def test_images_of_a_pixel(tmp_path, side):
    data = read(tmp_path, pictures(side=side), test_fraction=0.4)
    assert data.train.images.shape == (3, 3, side, side)


def test_palettes_and_single_bits(tmp_path):
    mask = np.eye(8, dtype=bool)
    palette = Image.fromarray(np.where(mask, 0, 1).astype(np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    files = {
        "train/bits.png": png(Image.fromarray(mask)),
        "train/palette.png": saved(palette, "png"),
        "test/clear.png": saved(palette, "png", transparency=0),
    }
    data = read(tmp_path, files, background="black")
    bits, colours, clear = *data.train.images, data.test.images[0]
    assert (bits == np.where(mask, 255, 0)).all()
    assert (colours[:, 0, 0] == (10, 20, 30)).all() and (colours[:, 0, 1] == (200, 100, 50)).all()
    assert (clear[:, 0, 0] == 0).all() and (clear[:, 0, 1] == (200, 100, 50)).all()


# -- copies ----------------------------------------------------------------------------------------------------------


def test_test_images_that_are_trained_on_are_named(tmp_path):
    files = pictures("train", "test")
    files |= {"train/copy.png": files["test/3.png"], "train/again.png": files["train/0.png"]}
    assert read(tmp_path, files).notes == [f"{remarks.LEAKED} (1): test/3.png"]


def test_an_image_of_two_classes_is_named(tmp_path):
    files = pictures("train/cat", "train/dog", "test/cat", "test/dog")
    files["train/dog/same.bmp"] = encoded(coloured(0), "bmp")  # the pixels of train/cat/0.png
    assert read(tmp_path, files).notes == [f"{remarks.TORN} (1): train/cat/0.png and train/dog/same.bmp"]


def test_different_images_need_no_note(tmp_path):
    assert read(tmp_path, pictures("cat", "dog", count=20)).notes == []
