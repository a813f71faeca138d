"""Whether a derivative in forward mode is being taken, which some of torch's kernels lack."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def in_forward_mode(x: Tensor) -> bool:
    """Whether x carries a tangent. Compiled networks are never differentiated so."""
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None
