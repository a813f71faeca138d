"""The DiT itself: patches become tokens, blocks modulated by time and class mix them, tokens become patches again."""

from torch import Tensor, nn

from models.dit._config import DiTConfig
from models.dit._layers import Block, Leave
from models.dit._tokens import positions
from models.patches import patchify, unpatchify
from models.velocity import VelocityNetwork, zeroed

_TIME_FEATURES = 256  # whatever the width, as in the authors' code


class DiT(VelocityNetwork):
    """Diffusion transformer with adaLN-Zero blocks (Peebles & Xie 2022, arXiv 2212.09748) predicting a velocity.

    It is the network of SiT too (Ma et al. 2024, arXiv 2401.08740), but for two things. The output is the
    velocity's C channels alone, where the authors of both carry C more for a variance. And t in [0, 1] is embedded as
    `config.time_scale` t; the default of 1000 is the scale of DiT's integer steps, and SiT's code embeds t itself. An
    untrained network returns zeros.

    Args:
        config: the architecture.
    """

    config: DiTConfig
    position: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config, _TIME_FEATURES, config.width)
        width, pixels = config.width, config.patch**2
        self.enter = nn.Linear((config.channels + config.condition_channels) * pixels, width)
        # Fixed, so it follows from the config and is no part of the weights.
        self.register_buffer("position", positions(config.size // config.patch, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.leave = Leave(width, config.channels * pixels)
        self._initialise()

    def velocity(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.enter(patchify(x, self.config.patch)) + self.position  # (B, T, W)
        for block in self.blocks:
            h = block(h, emb)
        return unpatchify(self.leave(h, emb), self.config.patch)

    def _initialise(self) -> None:
        """Draw weights as the authors' code does: Glorot's, small embeddings, zeros where a branch must start shut."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        span = list(self.embed_span or ())
        for layer in (*self.embed_time, self.embed_label, *span[:1]):
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        for layer in self.modules():
            if isinstance(layer, Block | Leave):
                zeroed(layer.modulation)
        zeroed(self.leave.project)
        for layer in span[-1:]:
            zeroed(layer)
