"""The DiT itself: patches become tokens, blocks modulated by time and class mix them, tokens become patches again."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models._velocity import check_inputs, embedded_times, with_condition
from models.dit._config import DiTConfig
from models.dit._layers import Block, Leave
from models.dit._tokens import patchify, positions, unpatchify

_TIME_FEATURES = 256  # whatever the width, as in the authors' code


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero blocks (Peebles & Xie 2022, arXiv 2212.09748) predicting a velocity.

    It is the network of SiT too (Ma et al. 2024, arXiv 2401.08740), but for two things. The output is the
    velocity's C channels alone, where the authors of both carry C more for a variance. And t in [0, 1] is embedded as
    1000 t, which is the scale of DiT's integer steps; SiT's code embeds t itself. An untrained network returns zeros.

    Args:
        config: the architecture.
    """

    position: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, pixels = config.width, config.patch**2
        self.embed_time = nn.Sequential(nn.Linear(_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        # Of t - r. Its last layer starts at zero: at first u(x, r, t) is the velocity at t, whatever r.
        self.embed_span = (
            nn.Sequential(nn.Linear(_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
            if config.interval
            else None
        )
        # Row 0 is the null class: label -1 finds it, and every label below -1 is out of the table, also on a GPU.
        self.embed_label = nn.Embedding(config.classes + 1, width) if config.classes else None
        self.enter = nn.Linear((config.channels + config.condition_channels) * pixels, width)
        # Fixed, so it follows from the config and is no part of the weights.
        self.position: Tensor
        self.register_buffer("position", positions(config.size // config.patch, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.leave = Leave(width, config.channels * pixels)
        self._initialise()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        r: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity at x.

        Args:
            x: (B, C, H, W) images on the way from data to noise.
            t: (B,) or (), floating point: times in [0, 1], 0 at the data and 1 at the noise.
            labels: (B,) int64 in [-1, classes), -1 being the null class; None is the null class for all.
            condition: (B, condition_channels, H, W) in the dtype of ``x``: an image of the same size that says what to
                make, such as a low resolution one, resized (SR3, Saharia et al. 2021, arXiv 2104.07636). It is
                given to networks with condition channels, and to no other.
            r: (B,) or (), floating point, 0 <= r <= t: the other end of the interval whose average velocity is
                predicted, for networks with ``interval`` only; None is r = t.

        Returns:
            (B, C, H, W) in the dtype of ``x``, also under autocast.

        Raises:
            ValueError: if a shape or dtype is wrong, if labels reach an unconditional network, if a label is out of
                range (seen on the CPU only), or if a condition is given or missing against the config.
        """
        check_inputs(self.config, x, t, labels, condition, r)
        emb = embedded_times(self, t, r, _TIME_FEATURES, x)  # (B, W)
        if self.embed_label is not None:
            if labels is None:
                labels = torch.full((len(x),), -1, device=x.device)
            emb = emb + self.embed_label(labels + 1)
        emb = F.silu(emb)  # every modulation wants it activated: once is enough

        h = self.enter(patchify(with_condition(x, condition), self.config.patch)) + self.position  # (B, T, W)
        for block in self.blocks:
            h = block(h, emb)
        return unpatchify(self.leave(h, emb), self.config.patch).to(x.dtype)

    def _initialise(self) -> None:
        """Draw weights as the authors' code does: Glorot's, small embeddings, zeros where a branch must start shut."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in (self.embed_time[0], self.embed_time[2], self.embed_label):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        for layer in (*(block.modulation for block in self.blocks), self.leave.modulation, self.leave.project):
            nn.init.zeros_(layer.weight)
        if self.embed_span is not None:
            nn.init.normal_(self.embed_span[0].weight, std=0.02)
            nn.init.zeros_(self.embed_span[2].weight)
