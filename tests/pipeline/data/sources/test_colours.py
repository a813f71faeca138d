"""Colour profiles: converted to sRGB as their primaries and curves say, and never in silence."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.data.sources import decode, load
from pipeline.data.sources.colours import CONVERTED, UNUSABLE
from tests.pipeline.data.sources.formats import data_config, make_folder

# Columns: XYZ of red, green and blue, adapted to D50.
SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
ADOBE = np.array(
    [[0.6097559, 0.2052401, 0.149224], [0.3111242, 0.625656, 0.0632197], [0.0194811, 0.0608902, 0.7448387]]
)
P3 = np.array([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
GAMMA = 2.19921875


def to_linear(value):
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def from_linear(value):
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)


def fixed(*values):
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def curve(gamma=None):
    """A gamma curve, or that of sRGB by a table."""
    if gamma:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    table = np.round(65535 * to_linear(np.linspace(0, 1, 1024))).astype(">u2").tobytes()
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + table


def profile(space, tags, connection=b"XYZ ", kind=b"mntr"):
    """An ICC profile of version 2.1 with these tags."""
    offset, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        entries += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = bytes(8) + struct.pack(">I", 0x02100000) + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    head += fixed(0.9642, 1.0, 0.8249) + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + entries + body
    return struct.pack(">I", len(whole)) + whole[4:]


def of_primaries(matrix, gamma=None):
    colorants = {
        name + b"XYZ": b"XYZ " + bytes(4) + fixed(*matrix[:, place]) for place, name in enumerate((b"r", b"g", b"b"))
    }
    return profile(b"RGB ", colorants | {name + b"TRC": curve(gamma) for name in (b"r", b"g", b"b")})


def of_ink():
    """A CMYK profile with a table of two points for each ink: paper is white, every ink darkens it, none has colour."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    lightness = np.round(255 * (1 - inks.mean(1)))
    table = np.stack([lightness, np.full(16, 128), np.full(16, 128)], 1).astype(np.uint8).tobytes()
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + table + 3 * ramp
    return profile(b"CMYK", {b"A2B0": lut}, b"Lab ", b"prtr")


def saved(pixels, icc, mode=None, kind="png", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, kind, icc_profile=icc, **options)
    return stream.getvalue()


def decoded(file):
    """Pixels (H, W, C) of a file, over black, and the remarks on it."""
    result = decode.decode("a.png", file, None, (0, 0, 0))
    return result.pixels, list(result.remarks)


def muted():
    """Colours inside of every gamut here: (8, 8, 3)."""
    return np.random.default_rng(0).integers(90, 170, (8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("matrix", [ADOBE, P3], ids=["Adobe RGB", "Display P3"])
def test_colours_are_those_of_the_profile(matrix):
    before = muted()
    after, remarks = decoded(saved(before, of_primaries(matrix, GAMMA)))
    expected = 255 * from_linear((before / 255) ** GAMMA @ (np.linalg.inv(SRGB) @ matrix).T)
    assert np.abs(after - expected).max() < 1.5 < np.abs(before - expected).max()
    assert remarks == [CONVERTED]


@pytest.mark.parametrize(
    "icc", [None, of_primaries(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_keeps_its_values(icc):
    before = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    after, remarks = decoded(saved(before, icc))
    assert np.array_equal(after, before) and remarks == []


def test_grey_stays_grey_by_its_own_curve():
    before = np.arange(30, 94, dtype=np.uint8).reshape(8, 8)
    after, remarks = decoded(saved(before, profile(b"GRAY", {b"kTRC": curve(1.8)})))
    assert after.shape == (8, 8, 1) and remarks == [CONVERTED]
    assert np.abs(after[..., 0] - 255 * from_linear((before / 255) ** 1.8)).max() < 1.5


def test_transparency_is_left_as_it_is():
    before, icc = np.concatenate([muted(), np.full((8, 8, 1), 255, np.uint8)], 2), of_primaries(ADOBE, GAMMA)
    before[:4, :, 3] = 0
    after, remarks = decoded(saved(before, icc))
    opaque, _ = decoded(saved(np.ascontiguousarray(before[..., :3]), icc))
    assert not after[:4].any() and np.array_equal(after[4:], opaque[4:]) and remarks == [CONVERTED]


def test_a_palette_is_converted_as_its_colours_are():
    icc, image = of_primaries(ADOBE, GAMMA), Image.fromarray(muted()).quantize(16)
    files = [io.BytesIO(), io.BytesIO()]
    for one, file in zip((image, image.convert("RGB")), files, strict=True):
        one.save(file, "png", icc_profile=icc)
    (palette, remarks), (colours, _) = (decoded(file.getvalue()) for file in files)
    assert np.array_equal(palette, colours) and remarks == [CONVERTED]


def test_inks_are_mixed_as_their_profile_says():
    """Its Lab has no colour, so that all inks become grey; without it cyan is blue."""
    before = np.zeros((8, 8, 4), np.uint8)
    before[..., 0] = np.arange(8) * 30
    for icc in (of_ink(), None):
        after, remarks = decoded(saved(before, icc, "CMYK", "tiff"))
        coloured = np.ptp(after.astype(int), axis=2).max()
        assert coloured <= 3 if icc else coloured > 100
        assert remarks == [CONVERTED if icc else decode.CMYK]


@pytest.mark.parametrize(
    ("icc", "grey"),
    [(b"no profile", False), (of_primaries(ADOBE, GAMMA)[:200], False), (of_ink(), False), (of_primaries(ADOBE), True)],
    ids=["rubbish", "cut off", "of another number of colours", "of colours, for a grey image"],
)
def test_a_profile_that_cannot_be_used_is_ignored_with_a_note(icc, grey):
    before = muted()[..., :1] if grey else muted()
    after, remarks = decoded(saved(before.squeeze(), icc))
    assert np.array_equal(after, before) and remarks == [UNUSABLE]


def test_a_note_counts_and_names_the_converted_images(tmp_path):
    icc = of_primaries(ADOBE, GAMMA)
    files = {f"{number}.png": saved(muted() + number, icc if number < 2 else None) for number in range(5)}
    data = load(data_config("images", path=make_folder(tmp_path, files), test_fraction=0.4))
    assert data.notes == [f"{CONVERTED} (2): 0.png, 1.png"]
