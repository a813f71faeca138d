"""The device and the state of torch that a stage runs under."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.recipe.sections import Compute
from storage.errors import RecipeError


def prepare(compute: Compute) -> torch.device:
    """Set the number of threads and deterministic kernels. Returns the device to run on.

    On one machine with one number of threads the same work then gives the same bits. Raises RecipeError for a device
    that is absent.
    """
    threads, why = compute.threads_and_why()
    torch.set_num_threads(threads)
    logging.getLogger("pipeline").info("%d CPU thread%s (%s)", threads, "" if threads == 1 else "s", why)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    name = compute.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RecipeError(
            "compute.device must be a device of this machine that torch can use",
            name,
            "Set compute.device=cpu, or install a torch with CUDA",
        )
    return torch.device(name)


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Gradients inside come out the same each time, or torch raises for an operation that cannot do so.

    On a GPU attention goes backward by atomic additions, in whatever order, unless what is not deterministic is an
    error: the warnings that `prepare` asks for do not suffice.
    """
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cuda")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
