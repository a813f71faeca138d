"""Image files to arrays of one size, in threads. Every file that cannot be decoded is named, not the first alone."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.data.sources.colours import to_srgb
from pipeline.data.sources.depth import deeper_than_8
from pipeline.data.sources.kinds import FORMATS, HEAD, SAME, format_of
from pipeline.data.sources.members import Members
from pipeline.data.sources.text import listed, shown
from pipeline.recipe.sections import usable_cpus
from storage.errors import DataError, RecipeError
from storage.required import required

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 26  # a file of a few kB can claim billions of pixels
_BATCH, _BATCH_BYTES = 16, 2**22  # files given to a thread at a time, or fewer where these are large
# Remarks on images; their number and names follow in a note.
SEVERAL = "first images of files with several"
ENLARGED = "images smaller than data.size, which are enlarged"
CUT = "images over 4 times as long as wide, of which the central square is used"
LONG = 4
NOT_SQUARE = " is not square"
RESIZING = "Set data.size to crop and resize them all."
CMYK = "images in CMYK without a usable colour profile, which get rough colours"


@dataclass
class Decoded:
    """`images` uint8 (N, C, S, S). `formats` are those of the content, by name; `remarks` have names of images."""

    images: np.ndarray
    formats: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)


class _File(NamedTuple):
    name: str
    pixels: np.ndarray | None  # uint8 (S, S, 1 or 3)
    format: str | None
    remarks: tuple[str, ...]
    problem: str | None  # why there are no pixels


def background(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour's name or #rrggbb. Raises RecipeError for any other text."""
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(colour)[:3]
    except ValueError:
        remedy = "Give a name such as black, or #rrggbb."
        raise RecipeError("data.background must be a colour", colour, remedy) from None


def decode_all(
    members: Members, names: list[str], size: int | None, behind: tuple[int, int, int], resizing: str = RESIZING
) -> Decoded:
    """The images of these files, in their order; grey ones have one channel if all are grey. `resizing` is the remedy
    for images that are no squares of one size.

    Raises:
        DataError: files that cannot be decoded, have more than 8 bits to a channel, more than `MAX_PIXELS`, or without
            `size` are not squares of one size; or the source changes while it is read.
    """
    row = {name: place for place, name in enumerate(names)}
    decoded, coloured, count = Decoded(np.empty((0, 3, 0, 0), np.uint8)), False, 0
    problems: list[str] = []
    sizes: dict[int, list[str]] = {}
    for file in _decoded(members.read(set(names)), size, behind):
        count += 1
        if file.pixels is None:
            problems.append(f"{shown(file.name)}: {file.problem}")
            continue
        side = len(file.pixels)
        sizes.setdefault(side, []).append(file.name)
        decoded.formats[file.name] = required(file.format, "the format of a decoded image")
        for remark in file.remarks:
            decoded.remarks.setdefault(remark, []).append(file.name)
        if len(sizes) > 1 or problems:
            continue  # for the message alone
        if not decoded.images.size:
            decoded.images = np.empty((len(names), 3, side, side), np.uint8)
        decoded.images[row[file.name]] = file.pixels.transpose(2, 0, 1)  # grey fills all three
        coloured = coloured or file.pixels.shape[2] == 3
    if problems:
        value = f"{len(problems)} of {len(names)} images: {listed(problems)}"
        shapes = [problem for problem in problems if problem.endswith(NOT_SQUARE)]
        remedies = [resizing] * bool(shapes) + ["Repair, convert or remove them."] * (len(shapes) < len(problems))
        raise DataError(f"Every image of {members.source} must be usable", value, " ".join(remedies))
    if len(sizes) > 1:
        value = "; ".join(f"{len(of)} of {side} x {side} ({listed(of[:1])})" for side, of in sizes.items())
        raise DataError("Images must be of one size", value, resizing)
    if count != len(names):
        value = f"{count} of {len(names)} files"
        raise DataError(f"{members.source} must not change while it is read", value, "Leave it unchanged.")
    if not coloured:
        decoded.images = np.ascontiguousarray(decoded.images[:, :1])
    return decoded


def _batches(files: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    held = 0
    for name, data in files:
        batch.append((name, data))
        held += len(data)
        if len(batch) == _BATCH or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _decoded(files: Iterable[tuple[str, bytes]], size: int | None, behind: tuple[int, int, int]) -> Iterator[_File]:
    """Decode in threads (Pillow lets go of the interpreter's lock), in order, with few files in memory at a time."""
    batches = _batches(files)
    workers = usable_cpus()[0]

    def decode_batch(batch: list[tuple[str, bytes]]) -> list[_File]:
        return [decode(name, data, size, behind) for name, data in batch]

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            while True:
                while len(waiting) < 2 * workers and (batch := next(batches, None)):
                    waiting.append(pool.submit(decode_batch, batch))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for task in waiting:
                task.cancel()


def decode(name: str, data: bytes, size: int | None, behind: tuple[int, int, int]) -> _File:
    """One image file, or why it is none."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        return _File(name, None, None, (), "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return _File(name, None, None, (), f"{width} x {height}, more than {MAX_PIXELS} pixels")
            remarks = [SEVERAL] if image.format not in SAME and getattr(image, "is_animated", False) else []
            actual = image.format
            if deep := deeper_than_8(image, data):
                return _File(name, None, actual, (), f"{deep}, more than 8 bits to a channel")
            image.load()
            upright = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _File(name, None, None, (), f"more than {MAX_PIXELS} pixels")
    except MemoryError:  # no fault of the file
        raise
    except Exception as error:  # each decoder raises others
        content = format_of(data[:HEAD])
        why = "it cannot be decoded" if isinstance(error, UnidentifiedImageError) else shown(str(error))
        problem = f"damaged {content}: {why}" if content else f"no image, it begins with {data[:8]!r}"
        return _File(name, None, None, (), problem)
    if upright.mode.startswith(("I", "F")):
        return _File(name, None, actual, (), f"mode {image.mode}, more than 8 bits to a channel")
    width, height = upright.size
    if size is None and width != height:
        return _File(name, None, actual, (), f"{width} x {height}{NOT_SQUARE}")
    upright, converted = to_srgb(upright)
    remarks += [converted] if converted else []
    opaque = _opaque(upright, behind)
    remarks += [CMYK] if upright.mode == "CMYK" else []
    if size is not None:
        side = min(width, height)
        remarks += [ENLARGED] if side < size else []
        remarks += [CUT] if max(width, height) > LONG * side else []
        left, top = (width - side) // 2, (height - side) // 2
        opaque = opaque.crop((left, top, left + side, top + side))  # resize(box=...) would filter in what lies beyond
        opaque = opaque.resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(opaque)
    return _File(name, pixels[..., None] if pixels.ndim == 2 else pixels, actual, tuple(remarks), None)


def _opaque(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    """The image in mode L or RGB, over a background where it is transparent. Opaque images keep their colours."""
    from PIL import Image

    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of a palette with transparency that goes to RGB directly
        if np.asarray(image.getchannel("A")).min() < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*behind, 255)), image)
            grey = grey and len(set(behind)) == 1
    return image.convert("L" if grey else "RGB")
