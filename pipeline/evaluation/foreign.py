"""Fréchet distances of images that flowctl did not generate, with the protocol of the evaluation stage."""

from __future__ import annotations

import tokenize
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.levels import as_stored, to_unit
from pipeline.data.sources.decode import background, decode_all
from pipeline.data.sources.images import files_left_out
from pipeline.data.sources.opening import open_members
from pipeline.data.sources.remarks import of_files
from pipeline.data.sources.text import listed
from pipeline.metrics import Moments, features, frechet_distance, frechet_warnings, load_inception, split_half
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import load_extractor, load_features
from storage.artifact import Artifact
from storage.errors import DataError
from storage.imageset import ImageSet
from storage.required import required

# What NumPy and zipfile raise for files that are damaged, or claim more than the memory holds.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, BadZipFile, TypeError, SyntaxError, MemoryError),
    *(zlib.error, tokenize.TokenError),
)
BATCH = 512  # images
RESIZING = "Images are measured as they are: crop and resize these first."


@dataclass(frozen=True)
class Images:
    """Images (N, C, H, W) uint8 of `levels` grey levels, and notes on what was left out or changed."""

    pixels: np.ndarray
    levels: int
    notes: tuple[str, ...] = ()

    def unit(self, levels: int, rows: slice, channels: int) -> Tensor:
        """Some of them, float32 in [-1, 1], rounded to `levels` as samples are; grey ones fill `channels`."""
        x = as_stored(torch.from_numpy(to_unit(self.pixels[rows], self.levels)), levels)
        return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


@dataclass(frozen=True)
class ForeignScore:
    """A Fréchet distance with all that is needed to read it.

    Attributes:
        value: the distance.
        floor: the distance between two random halves of the real images.
        held_out: the distance of the data's test images; None where the real images have none.
        protocol: facts that scores must share to be compared.
        warnings: about the files of the images, and their number.
    """

    value: float
    floor: float
    held_out: float | None
    protocol: dict[str, Any]
    warnings: tuple[str, ...]


def read_images(path: Path, behind: str = "white") -> Images:
    """A folder, zip or tar of images, or an .npz of `arr_0` (as ADM writes it) or `images`, NHWC or NCHW uint8.

    Transparent pixels are composited over the colour `behind`. An .npz may give `levels`, the number of grey levels;
    else there are 256. Raises DataError for anything else.
    """
    if not path.exists():
        raise DataError("Images must be a folder, an archive or an .npz", str(path), "Check the path.")
    if path.suffix.lower() != ".npz":
        members = open_members(path, None)
        if not members.images:
            raise DataError(f"{path} must hold images", "none", "Check the path.")
        decoded = decode_all(members, sorted(members.images), None, background(behind), resizing=RESIZING)
        others = files_left_out(members).items()
        left = [f"{path}: left out, as no images: {kind} ({len(names)}): {listed(names)}" for kind, names in others]
        return Images(decoded.images, 256, (*left, *of_files(decoded)))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            key = next((key for key in ("arr_0", "images") if key in arrays.files), None)
            pixels = None if key is None else arrays[key]
            levels = int(arrays["levels"]) if "levels" in arrays.files else 256
    except _UNREADABLE as error:
        raise DataError(f"{path} must be an .npz of plain arrays", str(error), "Write it with numpy.savez.") from None
    if not isinstance(pixels, np.ndarray):  # a member that is no array is read as bytes
        value = None if pixels is None else "a member that is no array"
        raise DataError(f"{path} must hold arr_0 or images", value, "Write it with numpy.savez.")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not len(pixels):
        raise DataError(
            f"{path} must hold arr_0 or images, uint8 of four dimensions",
            f"{pixels.dtype} {pixels.shape}",
            "Write images as uint8 of 0..255, NHWC or NCHW.",
        )
    _, a, b, c = pixels.shape
    if (c in (1, 3)) == (a in (1, 3) and b == c):
        raise DataError(f"{path} must hold NHWC or NCHW images of 1 or 3 channels", pixels.shape, "Transpose them.")
    return Images(pixels.transpose(0, 3, 1, 2) if c in (1, 3) else pixels, levels)


def against_reference(images: Images, data: Artifact, reference: Artifact, device: torch.device) -> ForeignScore:
    """The distance to a recipe's training images, in the features and statistics of its reference stage.

    Raises DataError for images of another size, or colour ones where the data are grey.
    """
    real = ImageSet.open(data.path(IMAGES)).originals
    _require_shape(images, (real.channels, real.size, real.size))
    network, moments = load_extractor(reference, real, device), load_features(reference, "train").moments
    facts = reference.metrics
    protocol = {
        "metric": facts["metric"],
        "extractor": facts["extractor"],
        "reference": reference.fingerprint[:12],
        "data": real.name,
        "split": "train",
        "n_real": facts["images"],
        "n_held_out": data.metrics["test"],
        **_generated(images, real.grey_levels),
        **facts["facts"],
    }
    generated = _moments(network, images, real.grey_levels, real.channels)
    return _score(generated, moments, facts["split_half"], facts["held_out"], protocol, images.notes)


def against_images(images: Images, real: Images, name: str, device: torch.device) -> ForeignScore:
    """FID between two sets of images of one size, by the standard Inception network."""
    channels = max(images.pixels.shape[1], real.pixels.shape[1])
    _require_shape(images, (channels, *real.pixels.shape[2:]))
    network = load_inception().to(device)
    rows = torch.cat(list(_features(network, real, real.levels, channels)))
    protocol = {
        "metric": network.metric,
        "extractor": "inception",
        "data": name,
        "n_real": len(rows),
        **_generated(images, images.levels),
        **network.facts,
    }
    generated = _moments(network, images, images.levels, channels)
    notes = (*images.notes, *(note for note in real.notes if note not in images.notes))
    return _score(generated, Moments.of(rows), split_half(rows), None, protocol, notes)


def _generated(images: Images, levels: int) -> dict[str, Any]:
    return {"n_fake": len(images.pixels), "quantised": f"{levels} levels, rounded half up", "labels": "unknown"}


def _require_shape(images: Images, shape: tuple[int, ...]) -> None:
    _, channels, *size = images.pixels.shape
    if tuple(size) != tuple(shape[1:]) or channels not in (1, shape[0]):
        raise DataError(
            f"Images must have the shape of the real ones, {' x '.join(map(str, shape))}",
            " x ".join(map(str, images.pixels.shape[1:])),
            "Resize or convert them.",
        )


def _features(network: nn.Module, images: Images, levels: int, channels: int):
    """(n, F) features of one batch after another."""
    for start in range(0, len(images.pixels), BATCH):
        yield features(network, images.unit(levels, slice(start, start + BATCH), channels))


def _moments(network: nn.Module, images: Images, levels: int, channels: int) -> Moments:
    moments = None
    for batch in _features(network, images, levels, channels):
        moments = (moments or Moments(batch.shape[1])).update(batch)
    return required(moments, "a batch of images")


def _score(
    generated: Moments,
    real: Moments,
    floor: float,
    held_out: float | None,
    protocol: dict[str, Any],
    notes: tuple[str, ...],
) -> ForeignScore:
    fewest = min(generated.count, real.count)
    warnings = (*notes, *frechet_warnings(fewest, len(real.mean), protocol.get("n_held_out")))
    return ForeignScore(frechet_distance(real, generated), floor, held_out, protocol, warnings)
