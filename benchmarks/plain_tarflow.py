"""TarFlow as it was published, plainly: what `benchmarks.teacher` measures ours against.

The published algorithm (Zhai et al. 2024, arXiv 2412.06329, and its code), written for this benchmark: an
explicit causal mask, the network run over all tokens and its output shifted by one, every block's output stored, and in
sampling a list of keys and of values that is concatenated for every token. Parameters are named as in
`models.tarflow.TarFlow`, so that the two can share weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tarflow import TarFlowConfig


class PlainAttention(nn.Module):
    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def forward(self, x: Tensor, mask: Tensor | None, sampling: bool) -> Tensor:  # (B, N, width) -> (B, N, width)
        b, n, width = x.shape
        heads = self.qkv(x).reshape(b, n, -1, self.head_dim).transpose(1, 2)  # (B, 3 heads, N, head_dim)
        query, keys, values = heads.chunk(3, dim=1)
        if sampling:
            self.keys.append(keys)
            self.values.append(values)
            keys, values = torch.cat(self.keys, dim=2), torch.cat(self.values, dim=2)
        x = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(x.transpose(1, 2).reshape(b, n, width))


class PlainLayer(nn.Module):
    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = PlainAttention(width, head_dim)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None, sampling: bool) -> Tensor:
        x = x + self.attention(self.attention_norm(x.float()).to(x.dtype), mask, sampling)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x.float()).to(x.dtype))))


class PlainBlock(nn.Module):
    def __init__(self, config: TarFlowConfig, layers: int, backwards: bool) -> None:
        super().__init__()
        self.backwards = backwards
        self.embed = nn.Linear(config.token_dim, config.width)
        self.position = nn.Parameter(torch.zeros(config.tokens, config.width))
        self.layers = nn.ModuleList(PlainLayer(config.width, config.head_dim) for _ in range(layers))
        self.head = nn.Linear(config.width, 2 * config.token_dim)
        self.register_buffer("mask", torch.ones(config.tokens, config.tokens).tril().bool(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, T, D) -> (B, T, D), (B,)
        x = x.flip(1) if self.backwards else x
        h = self.embed(x) + self.position
        for layer in self.layers:
            h = layer(h, self.mask, sampling=False)
        h = self.head(h)
        h = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], dim=1)
        log_scale, shift = h.chunk(2, dim=-1)
        z = (x - shift) * torch.exp(-log_scale)
        return z.flip(1) if self.backwards else z, -log_scale.mean(dim=(1, 2))

    def reverse(self, z: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        x = z.flip(1) if self.backwards else z.clone()
        for layer in self.layers:
            layer.attention.keys.clear()
            layer.attention.values.clear()
        for i in range(x.shape[1] - 1):
            h = self.embed(x[:, i : i + 1]) + self.position[i : i + 1]
            for layer in self.layers:
                h = layer(h, None, sampling=True)
            log_scale, shift = self.head(h).chunk(2, dim=-1)
            x[:, i + 1] = x[:, i + 1] * torch.exp(log_scale[:, 0]) + shift[:, 0]
        return x.flip(1) if self.backwards else x


class PlainTarFlow(nn.Module):
    """An unconditional TarFlow without a bound on its scale; holds the weights of a `models.tarflow.TarFlow`."""

    def __init__(self, config: TarFlowConfig) -> None:
        super().__init__()
        if config.classes or config.volume_preserving or config.log_scale_bound is not None:
            raise ValueError("the plain TarFlow is unconditional, with a free scale; change the config")
        self.config = config
        self.blocks = nn.ModuleList(PlainBlock(config, layers, bool(i % 2)) for i, layers in enumerate(config.depths))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """(B, C, H, W) -> latent tokens (B, T, D), every block's output, and the log-determinant per dimension (B,)."""
        x = F.unfold(x, self.config.patch, stride=self.config.patch).transpose(1, 2)
        outputs, logdet = [], torch.zeros((), device=x.device)
        for block in self.blocks:
            x, block_logdet = block(x)
            logdet = logdet + block_logdet
            outputs.append(x)
        return x, outputs, logdet

    def loss(self, x: Tensor) -> Tensor:
        """Negative log-likelihood in nats per dimension, less a constant."""
        z, _, logdet = self(x)
        return 0.5 * z.square().mean() - logdet.mean()

    @torch.no_grad()
    def reverse(self, z: Tensor) -> Tensor:
        """Latent tokens (B, T, D) -> images (B, C, H, W), token by token."""
        for block in reversed(self.blocks):
            z = block.reverse(z)
        size = self.config.size
        return F.fold(z.transpose(1, 2), (size, size), self.config.patch, stride=self.config.patch)
