"""TarFlow: a stack of causal autoregressive blocks that read the patches of an image in alternating order."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from models.patches import patchify, unpatchify
from models.tarflow._block import Block
from models.tarflow._checks import check_images, check_labels, first_bad_row
from models.tarflow._config import TarFlowConfig
from models.tarflow._precision import full_precision

# On a CPU this number of tokens keeps the activations in the cache, which halves the time of encoding a large batch.
TOKENS_AT_ONCE = 2048


class TarFlow(nn.Module):
    """An invertible map of images to latents whose density is known (Zhai et al. 2024, arXiv 2412.06329).

    If the config asks for a volume-preserving flow, the learned Gaussian prior N(0, diag v) enters as a last map
    z -> z / sqrt(v): so the latent of every flow is standard normal, and one sampler and one likelihood serve both.

    Args:
        config: its shape.
    """

    def __init__(self, config: TarFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layers) for layers in config.depths)
        self.prior_log_variance = nn.Parameter(torch.zeros(config.shape)) if config.volume_preserving else None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, of the images that go in, and of what comes out."""
        return self.block(0).head.weight.dtype

    def block(self, index: int) -> Block:
        """Block number `index`, from the data's side; torch types no members of a ModuleList."""
        return cast(Block, self.blocks[index])

    def forward(
        self, x: Tensor, labels: Tensor | None = None, noise_std: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map images to latents, all tokens in parallel.

        Follows the ambient autocast, except that shift, scale and log-determinant are in float32 (or float64).

        Args:
            x: (B, C, H, W), pixels in about [-1, 1].
            labels: (B,) int64, -1 for a dropped label; None drops all.
            noise_std: (B,), the noise level of each image, of a flow with noise levels; None for the config's.

        Returns:
            z (B, C, H, W), and the log-determinant of dz/dx, (B,), in nats, summed over all dimensions.

        Raises:
            ValueError: if shapes, dtypes or labels do not fit the flow.
        """
        check_images(x, self.config, self.dtype)
        check_labels(labels, len(x), self.config.classes)
        if noise_std is not None and self.config.noise_std is None:
            raise ValueError("noise_std must be None for a flow of one noise level, got a tensor; set config.noise_std")
        tokens = patchify(x, self.config.patch)  # (B, T, D)
        logdet = x.new_zeros(len(x))
        for index, block in enumerate(self.blocks):
            tokens, block_logdet = block(self.in_order(tokens, index), labels, noise_std)
            tokens = self.in_order(tokens, index)
            if block_logdet is not None:
                logdet = logdet + block_logdet
        z = unpatchify(tokens, self.config.patch)
        if self.prior_log_variance is not None:
            z = z * torch.exp(-0.5 * self.prior_log_variance)
            logdet = logdet - 0.5 * self.prior_log_variance.sum()
        return z, logdet

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Log-density of images, (B,), in nats: log N(z; 0, I) + log |det dz/dx|. Arguments as for `forward`.

        It can be differentiated, and follows the ambient autocast and dropout: wrap it in `full_precision` to measure.
        """
        z, logdet = self(x, labels)
        return logdet - 0.5 * (z.square().flatten(1).sum(dim=1) + self.config.dims * math.log(2 * math.pi))

    @torch.no_grad()
    def encode(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents of images, for use: in full precision whatever the surroundings, without dropout, and checked.

        A row's latent does not depend on the other rows. Only their number may change the order in which a matrix
        product is summed, which moves float32 latents by a few units in the last place (less than 1e-5).

        Args:
            x: (B, C, H, W), pixels in about [-1, 1].
            labels: (B,) int64, -1 for a dropped label; None drops all.

        Returns:
            z (B, C, H, W).

        Raises:
            ValueError: if shapes, dtypes or labels do not fit the flow.
            FloatingPointError: if a latent is not finite; names the row and the block.
        """
        check_images(x, self.config, self.dtype)
        check_labels(labels, len(x), self.config.classes)
        slices = [slice(None)]
        if x.device.type == "cpu":
            count = max(1, TOKENS_AT_ONCE // self.config.tokens)
            slices = [slice(first, first + count) for first in range(0, len(x), count)]
        z = torch.empty_like(x)
        with full_precision(self):
            for rows in slices:
                z[rows], _ = self(x[rows], None if labels is None else labels[rows])
            if first_bad_row(z) is not None:
                raise FloatingPointError(self._where_it_breaks(x, labels))
        return z

    def in_order(self, tokens: Tensor, index: int) -> Tensor:
        """Tokens (B, T, D) in the order in which block ``index`` reads them, or back: odd blocks read backwards."""
        return tokens.flip(1) if index % 2 else tokens

    def _where_it_breaks(self, x: Tensor, labels: Tensor | None) -> str:
        row = first_bad_row(x)
        if row is not None:
            return f"latents must be finite, got NaN or infinity in the image in row {row}; check the data"
        tokens = patchify(x, self.config.patch)
        for index, block in enumerate(self.blocks):
            tokens = self.in_order(block(self.in_order(tokens, index), labels)[0], index)
            row = first_bad_row(tokens)
            if row is not None:
                return f"latents must be finite, got row {row} overflowing in block {index}; the flow may have diverged"
        return "latents must be finite, got an overflow by the learned prior's variance; the flow may have diverged"
