"""Softmax attention, with a form that has a derivative in forward mode."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.forward_mode import in_forward_mode


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for each image and head: (B, heads, T, D) three times -> (B, heads, T, D).

    Fused kernels have no forward mode, which MeanFlow's target needs; there it is torch's plain form, to the same bits.
    """
    if not in_forward_mode(q):
        return F.scaled_dot_product_attention(q, k, v)
    root = q.shape[-1] ** -0.25  # on both sides, so that neither product overflows
    return torch.softmax((q * root) @ (k.mT * root), -1) @ v
