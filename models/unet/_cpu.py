"""The same mathematics by the operators that a CPU is fastest at.

Where a layer of the network has a faster form on CPUs, it is here, and the layer chooses by the device. Ratios in the
comments are of one core of an AMD EPYC with AVX-512; `python -m benchmarks.engine` measures all of them together.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import attention

FEWEST = 512  # pixels in a batch from which summing the weights first is faster


def pointwise(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer applied to each pixel's channels: (B, C, H, W) -> (B, C', H, W).

    As a convolution it is oneDNN's; as a product of float32 matrices it would be MKL's, which takes twice as long on
    CPUs that are not Intel's.
    """
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for each image and head: (B, heads, T, D) three times -> (B, heads, T, D)."""
    if q.dtype != torch.bfloat16:
        return attention.attend(q, k, v)
    # The fused operator computes in float32 whatever it is given. Products of bfloat16 take a third of its time.
    heads, scale = q.shape[1], q.shape[3] ** -0.5
    q, k, v = (part.flatten(0, 1) for part in (q * scale, k, v))  # (B heads, T, D)
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).unflatten(0, (-1, heads))


def repeated_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every pixel repeated 2 x 2, then a 3 x 3 convolution: (B, C, H, W), (C', C, 3, 3), (C',) -> (B, C', 2H, 2W).

    Repeated pixels meet neighbouring weights, so the weights can be summed first. This gives a
    transposed convolution of 4 x 4 weights and stride 2: 16 products for each pixel of x where there were 36, and no
    repeated image to write, read and keep.
    """
    if x.shape[0] * x.shape[2] * x.shape[3] < FEWEST:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    kernel = weight.permute(1, 2, 3, 0).contiguous()  # (C, 3, 3, C')
    for side in (1, 2):
        first, second, third = kernel.unbind(side)
        kernel = torch.stack([third, second + third, first + second, first], side)
    return F.conv_transpose2d(x, kernel.permute(0, 3, 1, 2), bias, stride=2, padding=1)


def dropout(x: Tensor, probability: float) -> Tensor:
    """x with elements zeroed by chance, the others divided by 1 - probability; the chance in multiples of 2^-16.

    One core draws while the others wait, and torch draws 64 bits for an element. 16 do, in a third of the time.
    """
    share = min(round(probability * 2**16), 2**16 - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits are random
    bits = draws.view(torch.int16)[: x.numel()].as_strided(x.shape, x.stride())  # each in its element's place
    return x * (bits >= share - 2**15).to(x.dtype).mul_(2**16 / (2**16 - share))
