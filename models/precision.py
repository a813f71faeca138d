"""float32 as IEEE 754 has it, whatever the surroundings allow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Operation = Literal["matmul", "conv"]
# torch has one setting for all threads, and a coupling may encode the next batch in another one: of blocks that overlap
# the first changes it, and the last changes it back.
_LOCK = threading.Lock()
_OPEN: dict[Operation, int] = {"matmul": 0, "conv": 0}
_BEFORE: dict[Operation, list[str]] = {}


@contextmanager
def ieee(device: torch.device | str, *operations: Operation) -> Iterator[None]:
    """No autocast on a device, and neither TF32 nor bf16 products in these operations of torch's; then as it was."""
    with _LOCK:
        for operation in operations:
            if not _OPEN[operation]:
                _BEFORE[operation] = [backend.fp32_precision for backend in _backends(operation)]
                _set(operation, ["ieee", "ieee"])
            _OPEN[operation] += 1
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        with _LOCK:
            for operation in operations:
                _OPEN[operation] -= 1
                if not _OPEN[operation]:
                    _set(operation, _BEFORE[operation])


def _backends(operation: Operation) -> list:
    """NVIDIA's libraries, and oneDNN."""
    nvidia = torch.backends.cuda if operation == "matmul" else torch.backends.cudnn
    return [getattr(backend, operation) for backend in (nvidia, torch.backends.mkldnn)]


def _set(operation: Operation, settings: list[str]) -> None:
    for backend, setting in zip(_backends(operation), settings, strict=True):
        backend.fp32_precision = setting
