"""The device and the state of torch that a stage runs under."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.recipe.sections import Compute
from storage.errors import RecipeError

# Else cuBLAS may choose among its workspaces, and with them the order of its sums. It is read at the first product on a
# GPU, which may come before any stage is prepared.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def prepare(compute: Compute) -> torch.device:
    """Set the number of threads and the choice of kernels. Returns the device to run on.

    With `compute.deterministic`, on one machine with one number of threads, the same work gives the same bits. Raises
    RecipeError for a device that is absent.
    """
    threads, why = compute.threads_and_why()
    torch.set_num_threads(threads)
    logging.getLogger("pipeline").info("%d CPU thread%s (%s)", threads, "" if threads == 1 else "s", why)
    _choose_kernels(compute.deterministic)
    name = compute.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    check_present(name)
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # which memory figures and waits without a device mean
    return device


def check_asked(compute: Compute) -> None:
    """Raises RecipeError for devices that the settings ask for and this machine lacks."""
    if compute.device.startswith("cuda") or (compute.device == "auto" and compute.nproc > 1):
        check_present(compute.device, compute.nproc)


def check_present(name: str, nproc: int = 1) -> None:
    """Raises RecipeError for a device, or for a number of processes with one each, that this machine does not have."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return
    if not count:
        raise RecipeError(
            "compute.device must be a device of this machine that torch can use",
            name,
            "Set compute.device=cpu, or install a torch with CUDA",
        )
    if int(name.partition(":")[2] or 0) >= count:
        raise RecipeError(f"compute.device must be one of this machine's {count} GPUs", name, "They count from cuda:0")
    if nproc > count:
        raise RecipeError(
            f"compute.nproc must be at most this machine's {count} GPUs, one for each process", nproc, "Lower it"
        )


def _choose_kernels(deterministic: bool) -> None:
    """Kernels that give the same bits each time, or the fastest ones. CPU kernels are the same in both cases."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # torch would fill every new tensor with NaN, a tenth of a small network's training step. Nothing here reads memory
    # that was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic  # times several kernels and takes the fastest


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Gradients inside come out the same each time, or torch raises for an operation that cannot do so.

    On a GPU the backward pass of attention adds atomically, in any order, unless nondeterminism is an error: the
    warnings that `prepare` asks for do not suffice. Where `prepare` chose the fastest kernels, nothing is asked.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cuda")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
