"""Images side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.data.levels import quantise, to_unit
from storage.errors import InputError

_TILE = 48  # pixels: smaller images are enlarged by a whole factor to at least this
_GAP = 2
_BACKGROUND = (255, 255, 255, 0)  # transparent, so that pictures suit light and dark pages
_INK = (120, 120, 120, 255)  # readable on both
_FONT = 14  # pixels


def grid(images: Tensor | np.ndarray, columns: int, levels: int = 256) -> Image.Image:
    """Tile images row by row, each enlarged by a whole factor to 48 pixels or more.

    Args:
        images: (N, C, H, W) with C 1 or 3; floating in [-1, 1], or uint8 in 0..levels-1.
        columns: images in a row.
        levels: grey levels of uint8 images.

    Returns:
        An RGBA picture, transparent between the tiles.

    Raises:
        InputError: another shape, no images, or fewer than one column.
    """
    pixels = _rgb(images, levels)  # (N, H, W, 3)
    count, height, width, _ = pixels.shape
    if columns < 1:
        raise InputError("A grid has one column or more", columns, "Ask for 1 or more.")
    scale = -(-_TILE // min(height, width))
    # Nearest, by hand, so that no resampling filter has a say.
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = scale * height + _GAP, scale * width + _GAP
    rows, columns = -(-count // columns), min(columns, count)
    canvas = np.full((rows * step_y - _GAP, columns * step_x - _GAP, 4), _BACKGROUND, dtype=np.uint8)
    for i, tile in enumerate(pixels):
        y, x = i // columns * step_y, i % columns * step_x
        place = canvas[y : y + scale * height, x : x + scale * width]
        place[..., :3], place[..., 3] = tile, 255
    return Image.fromarray(canvas)


def labelled_rows(rows: Sequence[tuple[str, Tensor | np.ndarray]], columns: int = 20) -> Image.Image:
    """Grids below each other, each with its caption at the left: the same noise at growing numbers of calls, say.

    Args:
        rows: (caption, images as for `grid`); more images than `columns` continue on the next line.
        columns: as for `grid`.

    Raises:
        InputError: no rows, or as for `grid`.
    """
    if not rows:
        raise InputError("A picture has one row or more", len(rows), "Give images.")
    font = ImageFont.load_default(_FONT)
    grids = [(caption, grid(images, columns)) for caption, images in rows]
    margin = max(int(font.getlength(caption)) + 1 for caption, _ in grids) + 6 * _GAP
    space = 4 * _GAP  # between rows
    width = margin + max(g.width for _, g in grids)
    canvas = Image.new("RGBA", (width + space, sum(g.height + space for _, g in grids) + space), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    y = space
    for caption, picture in grids:
        canvas.paste(picture, (margin, y))
        draw.text((margin - 4 * _GAP, y + picture.height / 2), caption, fill=_INK, font=font, anchor="rm")
        y += picture.height + space
    return canvas


def png(picture: Image.Image) -> bytes:
    """A PNG file, without times or other metadata."""
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=6)
    return file.getvalue()


def _rgb(images: Tensor | np.ndarray, levels: int) -> np.ndarray:
    """(N, H, W, 3) uint8 of 256 levels."""
    pixels = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise InputError("Pictures must be images (N, 1 or 3, H, W)", pixels.shape, "Give one or more of them.")
    pixels = quantise(to_unit(pixels, levels) if pixels.dtype == np.uint8 else pixels)
    return np.broadcast_to(pixels.transpose(0, 2, 3, 1), (len(pixels), *pixels.shape[2:], 3))
