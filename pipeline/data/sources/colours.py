"""Colours by the ICC profile that an image brings, as sRGB, which is what images without a profile are taken for."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageCms

# Remarks on images; their number and names follow in a note.
CONVERTED = "images with a colour profile other than sRGB, converted to sRGB"
UNUSABLE = "images with a damaged or unsuitable colour profile, which is ignored"
_SAME = 2  # grey levels of 255 by which a profile may differ from sRGB in rounding alone


def to_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """The image with the colours that its profile gives it, transparency as it is, and a remark if it had a profile.

    Images without a profile, and those whose profile is sRGB to within rounding, keep their values.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode == "1":
        return image, None
    from PIL import ImageCms

    plain = image
    if image.mode in ("P", "PA"):
        plain = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif "transparency" in image.info:  # one colour is transparent: it must be found before colours change
        plain = image.convert("LA" if image.mode == "L" else "RGBA")
    alpha = plain.getchannel("A") if plain.mode in ("LA", "RGBA") else None
    mode = {"LA": "L", "RGBA": "RGB"}.get(plain.mode, plain.mode)
    try:
        transform = _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, UNUSABLE
    if transform is None:
        return image, None
    colours = transform.apply(plain if alpha is None else plain.convert(mode))
    colours = colours.getchannel("R") if mode == "L" else colours
    if alpha is not None:
        colours.putalpha(alpha)
    return colours, CONVERTED


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB from images of this mode; None where that changes nothing. Raises PyCMSError, OSError for bad profiles.

    Relative colorimetric with black point compensation, as programs for photographs do it.
    """
    from PIL import Image, ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,  # threads share it
    )
    if mode == "CMYK":
        return transform
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    probe = levels[None] if mode == "L" else np.array([list(product(levels, repeat=3))], np.uint8)
    after = np.asarray(transform.apply(Image.fromarray(probe))).astype(int)
    before = probe[..., None] if mode == "L" else probe
    return None if np.abs(after - before).max() <= _SAME else transform
