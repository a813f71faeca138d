"""Building blocks of the ADM U-Net; each keeps the layout (contiguous or channels-last) it is given."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import attention
from models.forward_mode import in_forward_mode
from models.unet import _cpu
from models.velocity import zeroed


class GroupNorm(nn.GroupNorm):
    """Group norm with up to 32 groups of at least 4 channels: (B, C, H, W) -> (B, C, H, W), in the dtype of its input.

    Groups of one channel, which 32 groups would make of a narrow network, would erase that channel's mean.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 4), channels)

    def forward(self, x: Tensor) -> Tensor:
        # In float32, the precision of its weights, also under autocast; but all that follows must not be widened. (On
        # CPUs autocast leaves it in bfloat16, whose backward pass takes four times as long with the channels last.)
        x32 = x.to(self.weight.dtype)
        if in_forward_mode(x):
            x32 = x32.contiguous()  # torch's forward mode takes no other layout here
        return super().forward(x32).to(x.dtype)


class Dropout(nn.Dropout):
    """Zeroes each element by chance while training: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and self.training and self.p and not torch.compiler.is_compiling():
            return _cpu.dropout(x, self.p)
        return super().forward(x)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a time and class shift, added to a shortcut: ADM's block without scale."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(embedding, outputs)
        self.norm2 = GroupNorm(outputs)
        self.dropout = Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, inputs, H, W), under the activated embedding emb (B, E), to (B, outputs, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, outputs, H, W)
        h = h.add_(self.shift(emb)[:, :, None, None])  # in place, for nothing else needs what convolutions return
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h.add_(self.shortcut(x))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over pixels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        pointwise = _cpu.pointwise if x.is_cpu else _pointwise
        attend = _cpu.attend if x.is_cpu else attention.attend
        qkv = pointwise(self.norm(x), self.qkv).permute(0, 2, 3, 1)  # (B, H, W, 3 C)
        qkv = qkv.reshape(b, h * w, 3, -1, self.head_channels)  # (B, T, 3, heads, D), no copy if channels-last
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D)
        mixed = attend(q, k, v).transpose(1, 2).reshape(b, h, w, c)
        return pointwise(mixed.permute(0, 3, 1, 2), self.project).add_(x)


def _pointwise(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer applied to each pixel's channels: (B, C, H, W) -> (B, C', H, W)."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Downsample(nn.Conv2d):
    """Halve the resolution by a strided convolution: (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Double the resolution by repeating pixels, then convolve: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and self.bias is not None:
            return _cpu.repeated_convolution(x, self.weight, self.bias)
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNetLevel(nn.ModuleList):
    """Layers in sequence, of which the residual blocks also see the embedding emb (B, E)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C, H, W) through all layers."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResidualBlock) else layer(x)
        return x
