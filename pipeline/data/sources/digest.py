"""The identity of a source by content, so that a plan notices when files are edited. Light: planning imports it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.sources.kinds import HEAD, is_image
from pipeline.data.sources.published import CIFAR, IDX, IDX_FILES
from pipeline.data.sources.text import normal, shown
from storage.atomic import read_facts, sha256_file, write_json
from storage.checksummed_json import json_digest
from storage.errors import DataError

if TYPE_CHECKING:
    from pipeline.recipe.sections import Data

AUTOENCODER = ("config.json", "diffusion_pytorch_model.safetensors")  # diffusers' names
_SETTLED_SECONDS = 2.0  # a file changed again within its clock's tick keeps its time: fresh files are not remembered


def source_digest(config: Data, cache_dir: Path | None = None) -> str | None:
    """The SHA-256, as "sha256:...", of all that `config` would read: images, and the autoencoder if there is one.

    None if nothing is read but what comes with a library. Raises DataError as the two functions below.
    """
    images = images_digest(config, cache_dir)
    if config.autoencoder is None:
        return images
    both = [images, autoencoder_digest(config.autoencoder, cache_dir)]
    return "sha256:" + json_digest(both)


def autoencoder_digest(folder: Path, cache_dir: Path | None = None) -> str:
    """The SHA-256 of an autoencoder's files, remembered as below. Raises DataError if one of them is not there."""
    root = Path(folder).absolute()
    absent = [name for name in AUTOENCODER if not (root / name).is_file()]
    if absent:
        remedy = "Give the folder itself, such as vae/ of a whole pipeline, with weights as safetensors."
        raise DataError(f"data.autoencoder must be a folder with {' and '.join(AUTOENCODER)}", str(root), remedy)
    digests = _digests(root, {name: (root / name).stat() for name in AUTOENCODER}, _notes(root, cache_dir))
    return "sha256:" + json_digest(sorted(digests.items()))


def files_digest(files: Mapping[str, Path], cache_dir: Path | None = None) -> str:
    """The SHA-256 of single files and the purpose of each, cached as below. Raises DataError if one is not there."""
    pairs = []
    for name, file in sorted(files.items()):
        path = Path(file).absolute()
        if not path.is_file():
            raise DataError(f"The weights {name} must be a file", str(path), "Check the path.")
        pairs.append((name, _digests(path.parent, {path.name: path.stat()}, _notes(path, cache_dir))[path.name]))
    return "sha256:" + json_digest(pairs)


def images_digest(config: Data, cache_dir: Path | None = None) -> str | None:
    """The SHA-256 of the images that `config` would read; None for a source that comes with its library.

    cifar10, cifar100: the checksum that the archive must have. mnist, fashion-mnist: of the published files' checksums,
    or of the four files in the folder. images: of the archive file, or of the names and content of the folder's images.
    Digests are cached in `cache_dir` by name, size and times, so the next call only reads those.

    Raises DataError if there is nothing at `config.path`, or another content than `config.checksum` is of.
    """
    found = _images_digest(config, cache_dir)
    if config.checksum not in (None, found):
        remedy = "Fetch it again, or correct data.checksum."
        raise DataError(f"{shown(str(config.path))} must have the checksum {config.checksum}", found, remedy)
    return found


def _images_digest(config: Data, cache_dir: Path | None) -> str | None:
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
    from pipeline.data.sources.members import refuse_stores, walk

    refuse_stores(root)
    files = dict(walk(root))
    if config.test_list is not None:
        from pipeline.data.sources.held_out import require_list

        require_list(config.test_list, {*files, *map(normal, files)}, shown(str(root)))
    if config.layout == "webdataset":
        digests = _digests(root, files, _notes(root / config.layout, cache_dir), _digest_of_sample)
    else:
        digests = _digests(root, files, notes, _digest_of_image)
    pairs = sorted((normal(name), digest) for name, digest in digests.items() if digest)
    if config.test_list is not None and config.test_list in files:
        pairs.append((normal(config.test_list), sha256_file(root / config.test_list)))
    return "sha256:" + json_digest(pairs)


def is_shard(name: str) -> bool:
    """Whether a file of this name is a tar of images with classes in files of the same key."""
    return name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _digest_of_sample(path: Path) -> str | None:
    """The SHA-256 of a tar or of a file with a class; of others as `_digest_of_image`."""
    return sha256_file(path) if path.name.endswith(".cls") or is_shard(path.name) else _digest_of_image(path)


def _digest_of_image(path: Path) -> str | None:
    """The SHA-256 of a file, None if it is no image by its name or its first bytes."""
    from pipeline.data.sources.members import refusing

    def head() -> bytes:
        with open(path, "rb") as file:
            return file.read(HEAD)

    with refusing(path):
        return sha256_file(path) if is_image(path.name, head) else None


def idx_files(folder: Path) -> dict[str, Path]:
    """The four files of MNIST's format in `folder` by their names in `IDX_FILES`: each plain, or else as .gz.

    Raises DataError if one of them is not there.
    """
    files: dict[str, Path] = {}
    for name in IDX_FILES:
        spellings = [name, name.replace("-idx", ".idx")]  # unpacked by some programs with a dot
        places = [Path(folder) / f"{spelling}{end}" for end in ("", ".gz") for spelling in spellings]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            rule = f"data.path must be a folder with {', '.join(IDX_FILES)}, plain or .gz"
            raise DataError(rule, f"no {name} in {folder}", "Check the path.")
        files[name] = found
    return files


def _root(path: Path | None) -> Path:
    if path is None or not Path(path).exists():
        where = None if path is None else shown(str(Path(path).absolute()))
        raise DataError("data.path must be an existing folder or archive", where, "Check the path.")
    return Path(path).absolute()


def _notes(root: Path, cache_dir: Path | None) -> Path | None:
    """Where the digests of files below `root` are remembered."""
    place = hashlib.sha256(os.fsencode(root)).hexdigest()
    return cache_dir / f"source-{place[:32]}.json" if cache_dir else None


def _digests(
    root: Path, files: dict[str, os.stat_result], notes: Path | None, compute: Callable[[Path], Any] | None = None
) -> dict[str, Any]:
    """What `compute`, by default SHA-256, gives for each file below `root`; from `notes` where size and times match."""
    noted = read_facts(notes) if notes else {}
    now, settled, digests = time.time_ns(), {}, {}
    for name, stat in files.items():
        marks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        match noted.get(name):
            case [before, digest] if before == marks:
                digests[name] = digest
            case _:
                digests[name] = (compute or sha256_file)(root / name)
        if max(marks[1:]) < now - _SETTLED_SECONDS * 1e9:
            settled[name] = [marks, digests[name]]
    if notes and settled != noted:
        with suppress(OSError):  # a store that cannot be written costs the next plan its time, no more
            write_json(notes, settled)
    return digests
