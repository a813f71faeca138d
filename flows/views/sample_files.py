"""Images that were sampled, and the files that they are written to: a picture, an archive, or a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.data.levels import to_unit
from pipeline.data.sources.text import shown
from pipeline.reporting.pictures import grid, labelled_rows, png
from storage.atomic import replacing, write_bytes

CAPTION = 40  # characters of a class name


class Drawn(NamedTuple):
    """Grey levels (N, C, H, W) uint8, labels (N,) int64 or None, the number of levels, and the names of the classes."""

    images: np.ndarray
    labels: np.ndarray | None
    levels: int
    classes: tuple[str, ...] | None


def to_bytes(images: np.ndarray, levels: int) -> np.ndarray:
    """(N, H, W, C) uint8 in 0..255 of images (N, C, H, W) of `levels` grey levels."""
    return np.rint(images.transpose(0, 2, 3, 1) * (255 / (levels - 1))).astype(np.uint8)


def write(out: Path, drawn: Drawn, columns: int | None = None) -> None:
    """Write images by the ending of `out`.

    .png: one picture, a captioned row for each class where there are labels, else as square as it can be. .npz: arr_0
    (N, H, W, C) uint8 in 0..255 and arr_1, the labels, as ADM writes samples. No ending: a folder of PNG files, in a
    folder for each class, named by its number, where there are labels.
    """
    if out.suffix == ".png":
        write_bytes(out, png(_picture(drawn, columns)))
        return
    pixels, labels = to_bytes(drawn.images, drawn.levels), drawn.labels
    if out.suffix == ".npz":
        with replacing(out) as aside, open(aside, "wb") as stream:
            np.savez(stream, pixels, *([] if labels is None else [labels]))
        return
    for number, image in enumerate(pixels):
        folder = out if labels is None else out / str(labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / f"{number:06}.png", png(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)))


def _picture(drawn: Drawn, columns: int | None) -> Image.Image:
    images, labels, levels, _ = drawn
    if labels is None:
        return grid(images, columns or math.ceil(math.sqrt(len(images))), levels=levels)
    by_class = {int(label): images[labels == label] for label in np.unique(labels)}
    widest = columns or min(20, max(map(len, by_class.values())))
    rows = [
        (_caption(label, drawn.classes), torch.from_numpy(to_unit(some, levels))) for label, some in by_class.items()
    ]
    return labelled_rows(rows, widest)


def _caption(label: int, classes: Sequence[str] | None) -> str:
    """The name of a class; "class 3" where the name is a number too."""
    name = str(label) if classes is None else shown(classes[label])
    name = name if len(name) <= CAPTION else name[: CAPTION - 1] + "…"
    return f"class {name}" if name.isdecimal() else name
