"""The work of a call of a network, counted without running it: FLOPs, bytes of memory traffic, kernels.

`torch.utils.flop_counter` counts the FLOPs of products, convolutions and attention. For small networks these are the
smaller part of the time: activations, norms and copies move bytes. So the traffic is counted too, and the kernels, as
each takes a few microseconds to start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


@dataclass(frozen=True)
class Work:
    """FLOPs (a multiplication and an addition are two), bytes read and written, and kernels started."""

    flops: float = 0.0
    traffic: float = 0.0
    kernels: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.traffic + other.traffic, self.kernels + other.kernels)

    def __mul__(self, factor: float) -> Work:
        return Work(factor * self.flops, factor * self.traffic, factor * self.kernels)


def counted(call: Callable[[], Any]) -> Work:
    """The work of `call`, which runs; under `FakeTensorMode`, with shapes alone.

    What the creation of a network takes is counted too: create it outside of `call` to leave it out.
    """
    with FlopCounterMode(display=False, custom_mapping=_cpu_formulas()) as flops, _Traffic() as traffic:
        call()
    return Work(float(flops.get_total_flops()), float(traffic.bytes), float(traffic.kernels))


class _Traffic(TorchDispatchMode):
    """Counts the kernels, and the bytes of their inputs and outputs. Views read and write nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.kernels = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if not any(value.alias_info is not None and not value.alias_info.is_write for value in returns):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.kernels += 1
        return out


def _cpu_formulas() -> dict[Any, Callable[..., int]]:
    """FLOPs of kernels for CPUs that torch's table lacks: attention, and the linear layer of `models.tarflow`."""
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, out_shape=None, **options: (
            sdpa_flop_count(q, k, v)
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *rest, out_shape=None, **o: (
            sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        formulas[torch.ops.mkldnn._linear_pointwise] = lambda x, weight, *rest, out_shape=None, **options: (
            2 * math.prod(x) * weight[0]  # (..., in) by (out, in)
        )
    return formulas
