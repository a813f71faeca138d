"""Files from the internet: fetched once, and only ever used with the checksum that was expected."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from storage.errors import DataError, DownloadError

RETRIES = 3  # pooch waits 1, 2, 3 ... seconds before each
TIMEOUT_SECONDS = 60  # seconds without an answer
UNREADABLE = (  # what the readers of both formats raise; a pickle that is cut in an argument ends in the last two
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
    IndexError,
)


def fetch(url: str, checksum: str, field: str, cache_dir: Path | None = None, folder: str = "") -> Path:
    """The file behind `url`, from the cache if it is there with its checksum ("sha256:" and 64 digits).

    Args:
        field: the setting that names a local copy, for the message.
        cache_dir: by default the user's cache.
        folder: below `cache_dir`, for files whose names other data sets use too.

    Raises:
        DownloadError: no network, no space, or another checksum.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    base, name = url.rsplit("/", 1)
    registry = pooch.create(
        Path(cache_dir or pooch.os_cache("flowctl")) / folder,
        f"{base}/",
        registry={name: checksum},
        retry_if_failed=RETRIES,
    )
    try:
        return Path(registry.fetch(name, downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)))
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{url} must be reachable and have the checksum {checksum}",
            f"{type(error).__name__}: {error}",
            f"Fetch it by other means and set {field}.",
        ) from error


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. It is .safetensors, or else .pth, of which nothing is executed.

    Raises:
        DataError: not a file of tensors by name; `remedy` says which file is meant.
    """
    try:
        safe = path.suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # Not the words of a pickle's reader, which advise to run whatever is in it.
        why = "" if isinstance(error, pickle.UnpicklingError) else f": {error}"
        raise DataError(f"{path} must hold tensors and nothing else", f"{type(error).__name__}{why}", remedy) from None
    if not isinstance(tensors, dict):
        raise DataError(f"{path} must hold tensors by name", type(tensors).__name__, remedy)
    return tensors
