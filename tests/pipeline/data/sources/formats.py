"""Small files in the formats that the loaders read, made without them."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def data_config(source: str, **changes: Any) -> SimpleNamespace:
    """What the loaders read of a recipe's data section."""
    fields = {
        "path": None,
        "checksum": None,
        "size": None,
        "test_fraction": 0.2,
        "limit": None,
        "seed": 0,
        "small_classes": "refuse",
        "layout": "auto",
        "test_list": None,
        "names_encoding": None,
        "background": "white",
        "classes": None,
        "autoencoder": None,
    }
    return SimpleNamespace(source=source, **{**fields, **changes})


def cifar10_pixels(batch: int, per_batch: int) -> tuple[np.ndarray, list[int]]:
    """data uint8 (N, 3072) and labels of one batch (0 to 4 train, 5 test); each class has its brightness."""
    labels = [(batch + i) % 10 for i in range(per_batch)]
    noise = np.random.RandomState(batch).randint(0, 30, (per_batch, 3072))
    return (noise + 20 * np.array(labels)[:, None]).astype(np.uint8), labels


def make_cifar10_archive(path: Path, per_batch: int, changes: Mapping[str, bytes | None] | None = None) -> str:
    """Write an archive in the official format, `per_batch` images in each of six batches; return its "sha256:...".

    `changes` replaces members, or leaves them out where None.
    """
    members = {"batches.meta": python2_pickle({b"label_names": [name.encode() for name in CIFAR10_CLASSES]})}
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        data, labels = cifar10_pixels(i, per_batch)
        members[name] = python2_pickle({b"batch_label": name.encode(), b"labels": labels, b"data": data})
    members = {**members, "readme.html": b"<p>", **(changes or {})}
    kept = {f"cifar-10-batches-py/{name}": data for name, data in members.items() if data is not None}
    return make_tar(path, kept)


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 and its NumPy wrote it, which Python 3 cannot write: text is bytes, and so are arrays."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    dtype = (
        b"cnumpy\ndtype\n" + _opcodes((b"u1", 0, 1)) + b"R" + _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
    return (
        empty + b"(" + _opcodes(1) + _opcodes(value.shape) + dtype + _opcodes(False) + _opcodes(value.tobytes()) + b"tb"
    )


def encoded(pixels: np.ndarray, kind: str = "png", **options: Any) -> bytes:
    """An image file of pixels (H, W) or (H, W, 3 or 4) uint8, or (H, W) uint16."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def coloured(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def make_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> str:
    """A tar, compressed as its name says; a TarInfo as value is a member without content. Returns its "sha256:..."."""
    kind = path.suffix[1:]
    with tarfile.open(path, f"w:{kind}" if kind in ("gz", "xz", "bz2") else "w") as archive:
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            content = b"" if isinstance(data, tarfile.TarInfo) else data
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def make_idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape) + array.tobytes()
