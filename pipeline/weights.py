"""Published weights, read from local files as tensors and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from storage.errors import InputError


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. It is .safetensors, or else .pth, of which nothing is executed.

    Raises:
        InputError: not a file of tensors by name; `remedy` says which file is meant.
    """
    try:
        safe = path.suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path} holds tensors and nothing else", f"{type(error).__name__}: {error}", remedy) from None
    if not isinstance(tensors, dict):
        raise InputError(f"{path} holds tensors by name", type(tensors).__name__, remedy)
    return tensors
