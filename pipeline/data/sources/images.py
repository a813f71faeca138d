"""Your own images: a folder, zip or tar (gz, bz2, xz) of PNG, JPEG, BMP or WebP files, in class folders or not."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.sources import DataConfig, LoadedData
from pipeline.data.sources.arrange import arrange
from pipeline.data.sources.digest import images_digest
from pipeline.data.sources.members import names, read
from pipeline.data.sources.split import balanced, named, numbers_of, renumbered, require_enough, stratified
from storage.errors import InputError
from storage.imageset import Split

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 26  # a file of a few kB can claim billions of pixels
_BATCH = 16  # files given to a thread at a time


def load(config: DataConfig, cache_dir: Path | None) -> LoadedData:
    """Images (N, 1, S, S) if all are grey, else (N, 3, S, S), in the order of their names; transparency is dropped.

    Folders train and test are the split, else `test_fraction` and `seed` make one. With `size` each image is cut to its
    central square and resized by Lanczos' filter; without, all must be squares of one size.
    """
    if config.path is None:
        raise InputError("the source 'images' reads a folder or archive", None, "Set data.path.")
    path = Path(config.path)
    name = path.name.split(".")[0] or "images"
    digest = images_digest(config, cache_dir)
    if config.checksum not in (None, digest):
        raise InputError(
            f"{path} has the checksum {config.checksum}", digest, "Fetch it again, or correct the checksum."
        )
    found = arrange(path.name, names(path))
    wanted = numbers_of(config.classes, found.classes, path.name)
    labels = np.zeros(len(found.names), np.int64) if found.labels is None else found.labels
    if found.tests is None:
        train, test = stratified(labels, config.test_fraction, config.seed)
    else:
        train, test = np.flatnonzero(~found.tests), np.flatnonzero(found.tests)
    if wanted is not None:
        train, test = (part[np.isin(labels[part], wanted)] for part in (train, test))
    if config.limit is not None:
        train, test = (part[balanced(labels[part], config.limit)] for part in (train, test))
    require_enough(path.name, len(train), len(test))
    chosen = np.concatenate([train, test])
    images = decode_all(path, [found.names[i] for i in chosen], config.size)
    parts = images[: len(train)], images[len(train) :]
    train, test = (
        Split(pixels, None if found.labels is None else renumbered(labels[part], wanted))
        for pixels, part in zip(parts, (train, test), strict=True)
    )
    classes = None if found.classes is None else named(found.classes, wanted)
    return LoadedData(name, train, test, levels=256, classes=classes)


def decode_all(path: Path, files: list[str], size: int | None) -> np.ndarray:
    """Images uint8 (N, C, S, S) in the order of `files`."""
    row = {name: i for i, name in enumerate(files)}
    images, first, coloured, count = None, "", False, 0
    for name, pixels in _decoded(read(path, set(files)), size):  # pixels (S, S, 1 or 3)
        if images is None:
            images, first = np.empty((len(files), 3, *pixels.shape[:2]), np.uint8), name
        if pixels.shape[:2] != images.shape[2:]:
            sizes = " and ".join(
                f"{n} of {w} x {h}" for n, (h, w) in ((first, images.shape[2:]), (name, pixels.shape[:2]))
            )
            raise InputError("images are of one size", sizes, "Set data.size to crop and resize them all.")
        images[row[name]] = pixels.transpose(2, 0, 1)  # grey fills all three
        coloured, count = coloured or pixels.shape[2] == 3, count + 1
    if images is None or count != len(files):
        raise InputError(f"{path} stays as it is while it is read", f"{count} of {len(files)} files", "Run it again.")
    return images if coloured else np.ascontiguousarray(images[:, :1])


def _decoded(files: Iterable[tuple[str, bytes]], size: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Decode in threads (Pillow lets go of the interpreter's lock), in order, with few files in memory at a time."""
    files = iter(files)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            while True:
                while len(waiting) < 2 * workers and (batch := list(islice(files, _BATCH))):
                    waiting.append(pool.submit(lambda some: [(n, _decode(n, data, size)) for n, data in some], batch))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for task in waiting:
                task.cancel()


def _decode(name: str, data: bytes, size: int | None) -> np.ndarray:
    """One image as uint8 (S, S, 1 or 3)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "BMP", "WEBP"]) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                image.load()
                image = _plain(name, ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width, height = MAX_PIXELS, MAX_PIXELS
    except InputError:
        raise
    except Exception as error:  # each decoder has its own
        raise InputError("every image can be decoded", f"{name}: {error}", "Repair or remove it.") from error
    if width * height > MAX_PIXELS:
        raise InputError(f"an image has at most {MAX_PIXELS} pixels", name, "Shrink or remove it.")
    width, height = image.size
    if size is not None:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))  # resize(box=...) would filter in what lies beyond
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    elif width != height:
        raise InputError("images are square", f"{name} of {width} x {height}", "Set data.size to crop and resize them.")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _plain(name: str, image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        raise InputError("images have 8 bits to a channel", f"{name} of mode {image.mode}", "Convert it to 8 bits.")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of a palette with transparency that goes to RGB directly
    return image.convert("RGB")
