"""`Block.predict` of one token at a time on a CPU, by the fewest operators.

One token of a few rows is little arithmetic, and calling its operators takes as long. So views that every token needs
are created once. Weights are transposed once: on an Intel core MKL multiplies 1 to 64 rows by them 1.1 to 1.4 times as
fast, and 1.4 to 1.8 times as fast as oneDNN multiplies.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tarflow._block import LARGEST_READ, Block
from models.tarflow._cache import KVCache
from models.tarflow._linear import HAS_ONEDNN, WORTHWHILE
from models.tarflow._transformer import Layer

CPUINFO = Path("/proc/cpuinfo")
#: MKL uses AVX-512 on Intel's processors only; elsewhere oneDNN multiplies many rows faster (see `_linear`).
INTEL = CPUINFO.exists() and "GenuineIntel" in CPUINFO.read_text()


def reads_tokens(block: Block, rows: int) -> bool:
    """Whether `TokenReader` is the faster way to read a token of ``rows`` rows, under the ambient autocast."""
    weight = block.head.weight
    return (
        weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and (INTEL or not HAS_ONEDNN or rows * 4 * block.embed.out_features**2 < WORTHWHILE)
    )


class TokenReader:
    """Reads the tokens of one block in order, and says how to transform the token after each.

    Args:
        block: whose weights it reads, in evaluation mode.
        cache: takes the keys and values of the tokens; its rows are those of the tokens.
        condition, sharpness: as for `Block.predict`.
    """

    def __init__(self, block: Block, cache: KVCache, condition: Tensor | None, sharpness: Tensor | None) -> None:
        positions = block.position + block.embed.bias  # (T, width)
        per_row = condition is not None and len(condition) > 1
        if condition is not None and not per_row:
            positions = positions + condition[0]
        self._positions = positions.unbind(0)
        self._condition = cast(Tensor, condition)[:, 0] if per_row else None  # (B, width)
        self._embed, _ = _transposed(block.embed)
        self._head, self._head_bias = _transposed(block.head)
        self._layers = [
            _LayerReader(cast(Layer, layer), memory, sharpness)
            for layer, memory in zip(block.layers, cache.memories[: len(block.layers)], strict=True)
        ]
        self._volume_preserving = block.volume_preserving

    def __call__(self, token: Tensor, position: int) -> tuple[Tensor | None, Tensor]:
        """Read the token (B, D) at a position: log-scale and shift of the next, (B, D), as of `Block.predict`."""
        h = torch.addmm(self._positions[position], token.clamp(-LARGEST_READ, LARGEST_READ), self._embed)  # (B, width)
        if self._condition is not None:
            h += self._condition
        for layer in self._layers:
            layer(h, position)
        out = torch.addmm(self._head_bias, h, self._head)
        if self._volume_preserving:
            return None, out
        log_scale, shift = out.chunk(2, dim=-1)
        return log_scale, shift


class _LayerReader:
    """One transformer layer of a `TokenReader`."""

    def __init__(self, layer: Layer, memory: Tensor, sharpness: Tensor | None) -> None:
        _, rows, heads, _, head_dim = memory.shape  # (2, B, heads, T, head_dim)
        attention = layer.attention
        self._attention_norm, self._mlp_norm = _normalised(layer.attention_norm), _normalised(layer.mlp_norm)
        self._qkv, self._out = _transposed(attention.qkv), _transposed(attention.out)
        self._mlp_in, self._mlp_out = _transposed(layer.mlp_in), _transposed(layer.mlp_out)
        self._sharpness = sharpness
        self._keys, self._values = memory.unbind(0)
        self._places = memory.unbind(3)  # for each token, its keys and values: (2, B, heads, head_dim)
        self._product = memory.new_empty(rows, 3 * heads * head_dim)
        parts = self._product.view(rows, 3, heads, head_dim).transpose(0, 1)
        self._query, self._keys_values = parts[0].unsqueeze(2), parts[1:]

    def __call__(self, h: Tensor, position: int) -> None:
        """Add the layer's two branches to h (B, width), in place."""
        weight, bias = self._qkv
        torch.addmm(bias, self._attention_norm(h), weight, out=self._product)
        self._places[position].copy_(self._keys_values)
        query = self._query if self._sharpness is None else self._query * self._sharpness
        keys, values = (part.narrow(2, 0, position + 1) for part in (self._keys, self._values))
        mixed = F.scaled_dot_product_attention(query, keys, values)  # (B, heads, 1, head_dim)
        weight, bias = self._out
        h += torch.addmm(bias, mixed.reshape(h.shape), weight)
        weight, bias = self._mlp_in
        inner = F.gelu(torch.addmm(bias, self._mlp_norm(h), weight))
        weight, bias = self._mlp_out
        h += torch.addmm(bias, inner, weight)


def _transposed(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weights (in, out), contiguous, and the bias."""
    return layer.weight.t().contiguous(), layer.bias


def _normalised(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """The layer as a function: calling a module takes as long as normalising few rows."""
    return partial(
        F.layer_norm, normalized_shape=norm.normalized_shape, weight=norm.weight, bias=norm.bias, eps=norm.eps
    )
