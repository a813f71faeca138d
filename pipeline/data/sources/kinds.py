"""Which files are images, by name or by content. Light: planning imports it."""

from __future__ import annotations

import re
from collections.abc import Callable

# Formats that Pillow decodes to pixels, by Pillow's names. Left out are drawings (EPS, PDF, WMF, EMF), films (MPEG and
# FLI) and containers (BUFR, GRIB, HDF5, FITS, IPTC).
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "DDS": (".dds",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "IM": (".im",),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PIXAR": (".pxr",),
    "SUN": (".ras",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
BY_EXTENSION = {extension: name for name, extensions in FORMATS.items() for extension in extensions}
SAME = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}  # as good as the other where a name is held against content

# Photographs as cameras record them. Most are TIFF files whose first image is a thumbnail.
RAW = {
    f".{suffix}"
    for vendor in (
        ("dng", "raw"),
        ("crw", "cr2", "cr3"),  # Canon
        ("nef", "nrw"),  # Nikon
        ("arw", "sr2", "srf"),  # Sony
        ("raf", "orf", "rw2", "rwl", "pef", "srw"),  # Fujifilm, Olympus, Panasonic, Leica, Pentax, Samsung
        ("3fr", "iiq", "mef", "mos", "erf", "mrw", "x3f", "dcr", "kdc", "k25"),  # Hasselblad to Kodak
    )
    for suffix in vendor
}

HEAD = 32  # bytes that `format_of` looks at
# Formats that begin with bytes which nothing else begins with. The others are known by their extension alone.
_SIGNATURES = (
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("JPEG", rb"\xff\xd8\xff"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF....WEBP"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("BMP", rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"),
    ("PPM", rb"P[1-6][\s#]\s*[\d#]"),
    ("AVIF", rb".{4}ftypavi[fs]"),
    ("JPEG2000", rb"\xff\x4f\xff\x51|\0{3}\x0cjP  \r\n\x87\n"),
    ("ICO", rb"\0\0\x01\0[^\0]\0...\0"),
    ("ICNS", rb"icns"),
    ("DDS", rb"DDS \x7c\0{3}"),
    ("PSD", rb"8BPS\0\x01"),
    ("QOI", rb"qoif"),
    ("SGI", rb"\x01\xda[\0\x01][\x01\x02]"),
)
_PATTERNS = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _SIGNATURES)


def extension_of(name: str) -> str:
    """The last suffix of a file's name in lower case, with its dot; "" without one."""
    stem, dot, suffix = name.rsplit("/", 1)[-1].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def named_as_image(name: str) -> bool:
    """Whether the extension promises an image."""
    return extension_of(name) in BY_EXTENSION


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is an image by its extension, or else by its first bytes, which `head` gives."""
    return named_as_image(name) or (extension_of(name) not in RAW and format_of(head()) is not None)


def format_of(head: bytes) -> str | None:
    """The format whose signature the first `HEAD` bytes of a file have, None if none."""
    return next((name for name, pattern in _PATTERNS if pattern.match(head)), None)
