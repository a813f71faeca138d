"""The identity of a source by content, so that a plan notices when files are edited. Light: planning imports it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources.published import CIFAR, IDX, IDX_FILES
from storage.atomic import sha256_file, write_json
from storage.errors import DataError, InputError

if TYPE_CHECKING:
    from pipeline.data.sources import DataConfig

AUTOENCODER = ("config.json", "diffusion_pytorch_model.safetensors")  # diffusers' names
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_SETTLED = (
    2.0  # seconds: a file changed again within its clock's tick keeps its time, so fresh files are not remembered
)


def source_digest(config: DataConfig, cache_dir: Path | None = None) -> str | None:
    """The SHA-256, as "sha256:...", of all that `config` would read: images, and the autoencoder if there is one.

    None if nothing is read but what comes with a library. Raises InputError as the two functions below.
    """
    images = images_digest(config, cache_dir)
    if config.autoencoder is None:
        return images
    both = [images, autoencoder_digest(config.autoencoder, cache_dir)]
    return "sha256:" + hashlib.sha256(json.dumps(both).encode()).hexdigest()


def autoencoder_digest(folder: Path, cache_dir: Path | None = None) -> str:
    """The SHA-256 of an autoencoder's files, remembered as below. Raises InputError if one of them is not there."""
    root = Path(folder).absolute()
    absent = [name for name in AUTOENCODER if not (root / name).is_file()]
    if absent:
        remedy = "Give the folder itself, such as vae/ of a whole pipeline, with weights as safetensors."
        raise InputError(f"data.autoencoder is a folder with {' and '.join(AUTOENCODER)}", str(folder), remedy)
    digests = _digests(root, {name: (root / name).stat() for name in AUTOENCODER}, _notes(root, cache_dir))
    return "sha256:" + hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def files_digest(files: Mapping[str, Path], cache_dir: Path | None = None) -> str:
    """The SHA-256 of single files and what each is for, remembered as below. Raises InputError if one is not there."""
    found = []
    for name, file in sorted(files.items()):
        path = Path(file).absolute()
        if not path.is_file():
            raise InputError(f"The weights {name} are a file", str(file), "Check the path.")
        found.append((name, _digests(path.parent, {path.name: path.stat()}, _notes(path, cache_dir))[path.name]))
    return "sha256:" + hashlib.sha256(json.dumps(found).encode()).hexdigest()


def images_digest(config: DataConfig, cache_dir: Path | None = None) -> str | None:
    """The SHA-256 of the images that `config` would read; None for a source that comes with its library.

    cifar10, cifar100: the checksum that the archive must have. mnist, fashion-mnist: of the published files' checksums,
    or of the four files in the folder. images: of the archive file, or of the names and content of the folder's images.
    What was hashed is remembered in `cache_dir` by name, size and times, so the next call only looks at those.

    Raises DataError if there is nothing at `config.path`.
    """
    if config.source == "digits":
        return None
    if config.source in CIFAR:
        return config.checksum or CIFAR[config.source].checksum
    if config.source in IDX:
        return IDX[config.source].digest if config.path is None else files_digest(idx_files(config.path), cache_dir)
    root = _root(config.path)
    notes = _notes(root, cache_dir)
    if not root.is_dir():
        return "sha256:" + _digests(root.parent, {root.name: root.stat()}, notes)[root.name]
    from pipeline.data.sources.members import walk

    digests = _digests(root, {n: s for n, s in walk(root) if n.lower().endswith(IMAGES)}, notes)
    return "sha256:" + hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def idx_files(folder: Path) -> dict[str, Path]:
    """The four files of MNIST's format in `folder` by their names in `IDX_FILES`: each plain, or else as .gz.

    Raises DataError if one of them is not there.
    """
    files = {}
    for name in IDX_FILES:
        spellings = [name, name.replace("-idx", ".idx")]  # unpacked by some programs with a dot
        places = [Path(folder) / f"{spelling}{end}" for end in ("", ".gz") for spelling in spellings]
        files[name] = next((place for place in places if place.is_file()), None)
        if files[name] is None:
            rule = f"data.path must be a folder with {', '.join(IDX_FILES)}, plain or .gz"
            raise DataError(rule, f"no {name} in {folder}", "Check the path.")
    return files


def _root(path: Path | None) -> Path:
    if path is None or not Path(path).exists():
        raise InputError("data.path is an existing folder or archive", str(path), "Check the path.")
    return Path(path).absolute()


def _notes(root: Path, cache_dir: Path | None) -> Path | None:
    """Where the digests of files below `root` are remembered."""
    place = hashlib.sha256(os.fsencode(root)).hexdigest()
    return cache_dir / f"source-{place[:32]}.json" if cache_dir else None


def _digests(root: Path, files: dict[str, os.stat_result], notes: Path | None) -> dict[str, str]:
    """SHA-256 of each file below `root`, taken from the `notes` where size and times are as noted."""
    try:
        known = dict(json.loads(notes.read_text())) if notes else {}
    except (OSError, ValueError, TypeError):
        known = {}
    now, fresh, digests = time.time_ns(), {}, {}
    for name, stat in files.items():
        marks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        noted = known.get(name)
        digests[name] = noted[1] if noted and noted[0] == marks else sha256_file(root / name)
        if max(marks[1:]) < now - _SETTLED * 1e9:
            fresh[name] = [marks, digests[name]]
    if notes and fresh != known:
        with suppress(OSError):  # a store that cannot be written costs the next plan its time, no more
            write_json(notes, fresh)
    return digests
