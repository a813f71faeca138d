"""Bits to a channel of an image file. Of more than 8 Pillow takes the upper 8 of colours in silence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_DEEP = (";16B", ";16L", ";16N", "BC6H", "BC6HS")  # ends of Pillow's words; ";16" is also 5, 6 and 5 bits
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000, ISO/IEC 15444-1, A.5.1
_AV1_CONFIGURATION = b"av1C"  # a box of AVIF, "AV1 Codec ISO Media File Format Binding" 2.3.3
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}(.)", re.DOTALL)  # its bits to a channel
_XPM_COLOUR = re.compile(rb"\sc\s+#([0-9A-Fa-f]+)")


def deeper_than_8(image: ImageFile, data: bytes) -> str | None:
    """What says that an open file of this content has more than 8 bits to a channel, None if nothing does.

    It says so before `image.load()`; modes of more than 8 bits are not looked at here.
    """
    arguments = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in image.tile]
    words = [word for these in arguments for word in these if isinstance(word, str) and word.endswith(_DEEP)]
    if words:
        return f"mode {words[0]}"
    bits = 8
    if image.format == "PPM":  # the second argument is the largest value
        bits = max((these[1].bit_length() for these in arguments if len(these) == 2), default=8)
    elif image.format == "TIFF":  # bands that lie apart have words that do not tell
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    elif image.format == "SGI":
        bits = 16 if any(tile.codec_name == "SGI16" for tile in image.tile) else 8
    elif image.format == "DDS":  # the second argument may be the places of each channel's bits
        masks = [mask for these in arguments if isinstance(these[-1], tuple) for mask in these[-1]]
        bits = max((mask.bit_count() for mask in masks), default=8)
    elif image.format == "XPM":  # three numbers of equal length
        colours = _XPM_COLOUR.findall(data[: image.tile[0].offset])
        bits = max((4 * len(colour) // 3 for colour in colours), default=8)
    elif image.format in ("ICO", "ICNS"):  # made of other files
        bits = max([int(depth[0]) for depth in _PNG.findall(data)] + [_bits_of_codestream(data)])
    elif image.format == "JPEG2000":
        bits = _bits_of_codestream(data)
    elif image.format == "AVIF":
        start = data.find(_AV1_CONFIGURATION) + len(_AV1_CONFIGURATION)
        bits = 8 + 2 * (data[start + 2] >> 6 & 1) + 2 * (data[start + 2] >> 5 & 1)
    return f"{bits} bits" if bits > 8 else None


def _bits_of_codestream(data: bytes) -> int:
    """Those of the first JPEG 2000 in `data`; 8 where there is none."""
    start = data.find(_CODESTREAM)
    if start < 0:
        return 8
    channels = int.from_bytes(data[start + 40 : start + 42], "big")
    return max(((byte & 0x7F) + 1 for byte in data[start + 42 : start + 42 + 3 * channels : 3]), default=8)
