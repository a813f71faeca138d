"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their official archives for Python, fetched or given as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.fetching import fetch
from pipeline.data.sources import DataConfig, LoadedData, chosen
from pipeline.data.sources.members import open_members
from pipeline.data.sources.published import CIFAR, CifarSet
from pipeline.data.sources.unpickle import unpickle
from storage.atomic import sha256_file
from storage.errors import DataError
from storage.imageset import Split

_REMEDY = "Use the archive for Python as it was published."


def load(config: DataConfig, cache_dir: Path | None) -> LoadedData:
    """Images (N, 3, S, S) and their classes (of CIFAR-100 the fine ones), in the order of the archive; as many as its
    batches hold. S = 32, or `config.size` by area averaging.

    The archive must have its checksum, `config.checksum` or else the official one, before a byte of it is unpickled.
    """
    published = CIFAR[config.source]
    checksum = config.checksum or published.checksum
    if config.path is None:
        path = fetch(published.url, checksum, "data.path", cache_dir)
    else:
        path = _local(Path(config.path), checksum)
    batches = _batches(path, published)
    classes = [_text(name) for name in _field(batches, published.meta, published.names, list)]
    train, test = (_join(batches, part, published.labels, len(classes)) for part in (published.train, published.test))
    return chosen(config, train, test, classes)


def _local(path: Path, checksum: str) -> Path:
    if not path.is_file():
        raise DataError("data.path must be the archive for Python of this source", str(path), "Check the path.")
    actual = f"sha256:{sha256_file(path)}"
    if actual != checksum:
        remedy = "It is truncated or another file: fetch it again, or set data.checksum."
        raise DataError(f"{path} must have the checksum {checksum}", actual, remedy)
    return path


def _batches(path: Path, published: CifarSet) -> dict[str, dict[bytes, Any]]:
    """The unpickled members by their names without folders."""
    needed = [published.meta, *published.train, *published.test]
    members = open_members(path)
    stored = {name.rsplit("/", 1)[-1]: name for name in members.places}
    absent = [name for name in needed if name not in stored]
    if absent:
        raise DataError(f"{path.name} must hold {', '.join(needed)}", f"no {absent[0]}", _REMEDY)
    short = {stored[name]: name for name in needed}
    return {short[name]: unpickle(data, short[name]) for name, data in members.read(set(short))}


def _join(batches: dict[str, dict[bytes, Any]], part: tuple[str, ...], key: bytes, classes: int) -> Split:
    images, labels = [], []
    for name in part:
        pixels = _field(batches, name, b"data", np.ndarray)
        targets = _field(batches, name, key, list)
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or len(targets) != len(pixels):
            actual = f"data {pixels.dtype} {pixels.shape}, {len(targets)} labels"
            raise DataError(f"{name} must have data uint8 (N, 3072) and N labels", actual, _REMEDY)
        if not all(isinstance(label, int) and 0 <= label < classes for label in targets):
            raise DataError(f"Labels of {name} must be 0 to {classes - 1}", sorted(set(map(str, targets))), _REMEDY)
        images.append(pixels.reshape(-1, 3, 32, 32))  # each row: all red, then all green, then all blue
        labels.append(np.array(targets, dtype=np.int64))
    return Split(np.concatenate(images), np.concatenate(labels))


def _field(batches: dict[str, dict[bytes, Any]], name: str, key: bytes, kind: type) -> Any:
    batch = batches[name]
    value = batch.get(key) if isinstance(batch, dict) else None
    if not isinstance(value, kind):
        actual = f"{key.decode()}: {type(value).__name__}" if isinstance(batch, dict) else type(batch).__name__
        raise DataError(f"{name} must be a dictionary with {key.decode()}, a {kind.__name__}", actual, _REMEDY)
    return value


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
