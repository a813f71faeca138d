"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): IDX files, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from pipeline.data.fetching import fetch
from pipeline.data.sources.choice import chosen
from pipeline.data.sources.digest import idx_files, images_digest
from pipeline.data.sources.loaded import LoadedData
from pipeline.data.sources.published import IDX, IDX_FILES
from pipeline.recipe.sections import Data
from storage.errors import DataError
from storage.imageset import Split

_REMEDY = "Use the four files as they were published."


def load(config: Data, cache_dir: Path | None) -> LoadedData:
    """Images (N, 1, S, S) and ten classes in the order of the files; S = 28, or `config.size` by area averaging.

    Without `config.path` the published files are fetched, and each must have its checksum. A folder at `config.path`
    may hold any images of this format, such as those of Debian's package dataset-fashion-mnist; `config.checksum`, if
    given, is that of the folder, see `images_digest`.
    """
    published = IDX[config.source]
    if config.path is None:
        files = [
            fetch(f"{published.url}/{name}.gz", checksum, "data.path", cache_dir, folder=config.source)
            for name, checksum in zip(IDX_FILES, published.checksums, strict=True)
        ]
    else:
        files = list(idx_files(config.path).values())
        images_digest(config, cache_dir)  # verifies the checksum
    classes = list(published.classes)
    train, test = (_split(images, labels, len(classes)) for images, labels in (files[:2], files[2:]))
    return chosen(config, train, test, classes)


def _split(images_file: Path, labels_file: Path, classes: int) -> Split:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.shape[1] != images.shape[2]:
        raise DataError(f"Images of {images_file.name} must be square", images.shape[1:], _REMEDY)
    if len(images) != len(labels):
        rule = f"{images_file.name} and {labels_file.name} must hold the same number of entries"
        raise DataError(rule, f"{len(images)} and {len(labels)}", _REMEDY)
    if len(labels) and int(labels.max()) >= classes:
        raise DataError(f"Labels of {labels_file.name} must be 0 to {classes - 1}", int(labels.max()), _REMEDY)
    return Split(images[:, None], labels.astype(np.int64))


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file: two zero bytes, type 0x08, number of dimensions, sizes as big-endian int32, data.

    Raises:
        DataError: other magic bytes, fewer or more bytes than the sizes say, or a damaged gzip stream.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} must be readable", f"{type(error).__name__}: {error}", _REMEDY) from error
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        rule = f"{path} must be an IDX file of bytes in {dimensions} dimensions, which starts with {magic.hex()}"
        raise DataError(rule, content[:4].hex(), _REMEDY)
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)]
    if len(content) != start + int(np.prod(shape)):
        rule = f"{path} must hold {start} bytes and an array of {' x '.join(map(str, shape))}"
        raise DataError(rule, f"{len(content)} bytes", _REMEDY)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
