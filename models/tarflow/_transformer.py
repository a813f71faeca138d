"""A pre-norm causal transformer layer (Vaswani et al. 2017, arXiv 1706.03762; pre-norm: arXiv 2002.04745)."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.tarflow._cache import LayerCache
from models.tarflow._linear import Linear, LinearGELU


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, cache: LayerCache | None = None, sharpness: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, N, width).

        Args:
            x: the tokens; all of them from the first on or, with ``cache``, those for which it was opened.
            cache: keys and values of the tokens before.
            sharpness: (B, 1, 1, 1), factor on a row's logits: one over its attention temperature.
        """
        b, n, width = x.shape
        qkv = self.qkv(x).view(b, n, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, head_dim)
        query, keys, values = qkv.unbind(0)
        if sharpness is not None:
            query = query * sharpness
        if cache is None:
            mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        else:
            keys, values = cache.store(qkv[1:])
            first = cache.start == 0 and n > 1
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=cache.mask, is_causal=first)
        return self.out(mixed.transpose(1, 2).reshape(b, n, width))


class Layer(nn.Module):
    """Attention, then a GELU network of four times the width, each normalised before and added to its input."""

    def __init__(self, width: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, head_dim)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = LinearGELU(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)
        self.dropout = dropout

    def forward(self, x: Tensor, cache: LayerCache | None = None, sharpness: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, N, width); the arguments are those of `CausalAttention.forward`."""
        x = x + self._drop(self.attention(self.attention_norm(x), cache, sharpness))
        return x + self._drop(self.mlp_out(self.mlp_in(self.mlp_norm(x))))

    def _drop(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout) if self.training and self.dropout else branch
