"""Keys and values of tokens already seen, held outside the network."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """One attention layer's share of a `KVCache`, opened for the tokens ``start`` .. ``stop - 1``.

    ``mask`` is None where no token is ahead of the queries, that is for a single query, or where ``is_causal`` will do,
    that is where the queries start at token 0.
    """

    memory: Tensor  # (2, B, heads, T, head_dim): keys, then values
    start: int
    stop: int
    mask: Tensor | None  # (stop - start, stop), added to the attention's logits

    def store(self, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (2, B, heads, stop - start, head_dim); return keys and values of tokens 0 .. stop - 1 as views."""
        self.memory[:, :, :, self.start : self.stop] = keys_values
        keys, values = self.memory[:, :, :, : self.stop].unbind(0)
        return keys, values


class KVCache:
    """Room for the keys and values of every token and layer of the deepest block, allocated once.

    The decoder passes it to the block. Writing a token overwrites the old one, so the next block may reuse the memory.

    Args:
        shape: (layers, B, heads, T, head_dim).
        device, dtype: those of keys and values.

    Attributes:
        memories: keys and values of each layer, (2, B, heads, T, head_dim).
    """

    def __init__(self, shape: tuple[int, int, int, int, int], device: torch.device, dtype: torch.dtype) -> None:
        layers, *rest = shape
        self.memories = torch.empty(layers, 2, *rest, device=device, dtype=dtype).unbind(0)

    def open(self, start: int, stop: int, layers: int) -> list[LayerCache]:
        """Open the caches of a block's layers for the queries ``start`` .. ``stop - 1``."""
        mask = None
        if start > 0 and stop - start > 1:
            mask = self.memories[0].new_full((stop - start, stop), -torch.inf).triu(start + 1)
        return [LayerCache(memory, start, stop, mask) for memory in self.memories[:layers]]
