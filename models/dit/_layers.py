"""Layers of a DiT, each modulated by time and class: adaLN-Zero (arXiv 2212.09748, sec. 3.2)."""

from torch import Tensor, nn

from models.attention import attend


class ModulatedNorm(nn.Module):
    """Layer norm whose scale and shift come from the embedding instead of learned weights.

    (B, T, W), shift (B, W), scale (B, W) -> norm(h) (1 + scale) + shift, (B, T, W).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self.norm(h) * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head self-attention of all tokens to all: (B, T, W) -> (B, T, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        qkv = self.qkv(h).unflatten(2, (3, self.heads, -1))  # (B, T, 3, heads, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block whose two branches the embedding shifts, scales and gates; with the gates at 0, the identity.

    Unlike the norms' scales the gates have no 1 added: zero weights in ``modulation`` shut both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention_norm = ModulatedNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = ModulatedNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Map tokens h (B, T, W), under the activated embedding emb (B, W), to (B, T, W)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(emb).chunk(6, dim=1)  # each (B, W)
        h = h + gate1[:, None] * self.dropout(self.attention(self.attention_norm(h, shift1, scale1)))
        return h + gate2[:, None] * self.dropout(self.mlp(self.mlp_norm(h, shift2, scale2)))


class Leave(nn.Module):
    """The last norm, modulated, and the map from features to the pixels of a patch: (B, T, W) -> (B, T, C p^2)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.norm = ModulatedNorm(width)
        self.project = nn.Linear(width, outputs)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        shift, scale = self.modulation(emb).chunk(2, dim=1)  # each (B, W)
        return self.project(self.norm(h, shift, scale))
