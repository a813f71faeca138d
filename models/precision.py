"""float32 as IEEE 754 has it, whatever the surroundings allow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


@contextmanager
def ieee(device: torch.device | str, operation: Literal["matmul", "conv"]) -> Iterator[None]:
    """No autocast on a device, and neither TF32 nor bf16 products in an operation of torch's; then as it was."""
    nvidia = torch.backends.cuda if operation == "matmul" else torch.backends.cudnn
    backends = [getattr(backend, operation) for backend in (nvidia, torch.backends.mkldnn)]
    settings = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for backend, setting in zip(backends, settings, strict=True):
            backend.fp32_precision = setting
