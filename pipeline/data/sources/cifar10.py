"""CIFAR-10 (Krizhevsky, 2009) from its official archive for Python, downloaded once or given as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.fetching import fetch
from pipeline.data.sources import DataConfig, LoadedData
from pipeline.data.sources.digest import CIFAR10
from pipeline.data.sources.members import names, read
from pipeline.data.sources.split import limited, named, numbers_of, only_classes, require_enough
from pipeline.data.sources.unpickle import unpickle
from storage.atomic import sha256_file
from storage.errors import InputError
from storage.imageset import Split

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_AGAIN = "Use the archive for Python, cifar-10-python.tar.gz, as it was published."
_TRAIN, _TEST = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]


def load(config: DataConfig, cache_dir: Path | None) -> LoadedData:
    """Images (N, 3, 32, 32) and ten classes, in the order of the archive; as many as its batches hold.

    Not a byte is unpickled before the archive has its checksum: `config.checksum`, else the official one.
    """
    if config.size not in (None, 32):
        raise InputError("CIFAR-10 images are 32 pixels wide", config.size, "Leave data.size out.")
    expected = config.checksum or CIFAR10
    if config.path is None:
        path = fetch(URL, expected, "CIFAR-10 is", "data.path", cache_dir)
    else:
        path = _local(Path(config.path), expected)
    batches = _batches(path)
    classes = [_text(name) for name in _field(batches, "batches.meta", b"label_names", list)]
    wanted = numbers_of(config.classes, classes, "cifar10")
    train, test = (only_classes(_join(batches, part, len(classes)), wanted) for part in (_TRAIN, _TEST))
    train, test = limited(train, config.limit), limited(test, config.limit)
    require_enough("cifar10", len(train.images), len(test.images))
    return LoadedData("cifar10", train, test, levels=256, classes=named(classes, wanted))


def _local(path: Path, expected: str) -> Path:
    if not path.is_file():
        raise InputError("data.path is the archive cifar-10-python.tar.gz", str(path), "Check the path.")
    found = f"sha256:{sha256_file(path)}"
    if found != expected:
        remedy = "It is truncated or another file: fetch it again, or state its own data.checksum."
        raise InputError(f"{path} has the checksum {expected}", found, remedy)
    return path


def _batches(path: Path) -> dict[str, dict[bytes, Any]]:
    """The unpickled members by their names without folders."""
    stored = {name.rsplit("/", 1)[-1]: name for name in names(path)}
    absent = [name for name in ["batches.meta", *_TRAIN, *_TEST] if name not in stored]
    if absent:
        raise InputError(f"{path.name} holds batches.meta, {_TRAIN[0]} to 5 and test_batch", f"no {absent[0]}", _AGAIN)
    wanted = {stored[name]: name for name in ["batches.meta", *_TRAIN, *_TEST]}
    return {wanted[name]: unpickle(data, wanted[name]) for name, data in read(path, set(wanted))}


def _join(batches: dict[str, dict[bytes, Any]], part: list[str], classes: int) -> Split:
    images, labels = [], []
    for name in part:
        pixels = _field(batches, name, b"data", np.ndarray)
        targets = _field(batches, name, b"labels", list)
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or len(targets) != len(pixels):
            found = f"data {pixels.dtype} {pixels.shape}, {len(targets)} labels"
            raise InputError(f"{name} has data uint8 (N, 3072) and N labels", found, _AGAIN)
        if not all(isinstance(label, int) and 0 <= label < classes for label in targets):
            raise InputError(f"labels of {name} are 0 to {classes - 1}", sorted(set(map(str, targets))), _AGAIN)
        images.append(pixels.reshape(-1, 3, 32, 32))  # each row: all red, then all green, then all blue
        labels.append(np.array(targets, dtype=np.int64))
    return Split(np.concatenate(images), np.concatenate(labels))


def _field(batches: dict[str, dict[bytes, Any]], name: str, key: bytes, kind: type) -> Any:
    batch = batches[name]
    value = batch.get(key) if isinstance(batch, dict) else None
    if not isinstance(value, kind):
        found = f"{key.decode()}: {type(value).__name__}" if isinstance(batch, dict) else type(batch).__name__
        raise InputError(f"{name} is a dictionary with {key.decode()}, a {kind.__name__}", found, _AGAIN)
    return value


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
