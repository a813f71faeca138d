"""One block of the flow: each token shifted and scaled by a causal transformer of the tokens before it."""

import torch
from torch import Tensor, nn

from models.tarflow._cache import KVCache
from models.tarflow._config import TarFlowConfig
from models.tarflow._linear import Linear
from models.tarflow._noise_level import NoiseLevel
from models.tarflow._transformer import Layer

# The transformer reads no number beyond this, which leaves those of images and latents, a few units at most, alone.
# So shifts are bounded too, and neither a random initialisation nor a wild guess of Jacobi decoding can run away.
LARGEST_READ = 100.0


class Block(nn.Module):
    """A causal autoregressive affine map of T tokens (Zhai et al. 2024, arXiv 2412.06329).

    With log-scale a_i and shift b_i computed from the tokens before i, and a_0 = b_0 = 0,

        z_i = (x_i - b_i) exp(-a_i),    log |det dz/dx| = -sum_i a_i.

    Three deviations from the published code. The log-scale is bounded, a = B tanh(a'/B) for the network's output a'.
    The network's input is clamped to [-100, 100]. The output layer starts at zero, bias included, so that an
    untrained block is exactly the identity.
    """

    def __init__(self, config: TarFlowConfig, layers: int) -> None:
        super().__init__()
        self.log_scale_bound = config.log_scale_bound
        self.volume_preserving = config.volume_preserving
        self.embed = Linear(config.token_dim, config.width)
        # A block that reads backwards keeps its positions in its own order of reading.
        self.position = nn.Parameter(torch.randn(config.tokens, config.width) * 0.01)
        self.classes = nn.Parameter(torch.randn(config.classes, config.width) * 0.01) if config.classes else None
        self.noise_level = None if config.noise_std is None else NoiseLevel(config.width, config.noise_std)
        self.layers = nn.ModuleList(Layer(config.width, config.head_dim, config.dropout) for _ in range(layers))
        self.head = nn.Linear(config.width, config.token_dim * (1 if config.volume_preserving else 2))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def condition(self, labels: Tensor | None, noise_std: Tensor | None = None) -> Tensor | None:
        """What is added to every token: the class, the noise level, their sum, or None where there is neither.

        (B,) labels and noise levels -> (B, 1, width), or (1, 1, width) for None and None. A dropped label, -1, is the
        mean of all classes, in either direction of the flow. Without noise levels the config's is taken.
        """
        level = None if self.noise_level is None else self.noise_level(noise_std)
        if self.classes is None:
            return level
        mean = self.classes.mean(0, keepdim=True)  # (1, width)
        # Index -1 is the last row: the mean.
        classes = mean[None] if labels is None else torch.cat([self.classes, mean])[labels][:, None]
        return classes if level is None else classes + level

    def predict(
        self,
        tokens: Tensor,
        condition: Tensor | None,
        cache: KVCache | None = None,
        start: int = 0,
        sharpness: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Read tokens and say how to transform the token after each.

        Args:
            tokens: (B, N, D), the tokens ``start`` .. ``start + N - 1`` in this block's order.
            condition: what `Block.condition` returned.
            cache: holds the tokens before ``start``, and takes these.
            start: position of the first token; needs a ``cache`` if it is not 0.
            sharpness: (B, 1, 1, 1), one over the attention temperature of each row.

        Returns:
            Unbounded log-scale a' (None if volume-preserving) and shift b of the tokens ``start + 1`` .. ``start + N``,
            each (B, N, D), in float32 whatever autocast says, or in float64 in a float64 flow.
        """
        n = tokens.shape[1]
        h = self.embed(tokens.clamp(-LARGEST_READ, LARGEST_READ)) + self.position[start : start + n]  # (B, N, width)
        if condition is not None:
            h = h + condition
        caches = [None] * len(self.layers) if cache is None else cache.open(start, start + n, len(self.layers))
        for layer, layer_cache in zip(self.layers, caches, strict=True):
            h = layer(h, layer_cache, sharpness)
        with torch.autocast(h.device.type, enabled=False):
            out = self.head(h.to(self.head.weight.dtype))
        if self.volume_preserving:
            return None, out
        log_scale, shift = out.chunk(2, dim=-1)
        return log_scale, shift

    def bounded(self, log_scale: Tensor) -> Tensor:
        """The log-scale a, within [-B, B], of the network's a'; near zero they are the same."""
        bound = self.log_scale_bound
        return log_scale if bound is None else bound * torch.tanh(log_scale / bound)

    def forward(
        self, x: Tensor, labels: Tensor | None, noise_std: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Transform all tokens: (B, T, D) -> z (B, T, D), and the log-determinant (B,) in nats, or None if it is 0."""
        # The last token has none after it to inform, so the transformer never reads it.
        log_scale, shift = self.predict(x[:, :-1], self.condition(labels, noise_std))
        moved = x[:, 1:] - shift
        if log_scale is None:
            return torch.cat([x[:, :1], moved], dim=1), None
        log_scale = self.bounded(log_scale)
        z = torch.cat([x[:, :1], moved * torch.exp(-log_scale)], dim=1)
        return z, -log_scale.sum(dim=(1, 2))

    def invert(self, z: Tensor, log_scale: Tensor | None, shift: Tensor) -> Tensor:
        """x_i = z_i exp(a_i) + b_i, for what `predict` said of the same tokens: (B, N, D) -> (B, N, D)."""
        return z + shift if log_scale is None else z * torch.exp(self.bounded(log_scale)) + shift
