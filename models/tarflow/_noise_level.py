"""What tells a block the noise level of its images."""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 8  # of log eta, from 1/4 to 32 radians: levels within 3 % of each other differ by a radian


class NoiseLevel(nn.Module):
    """Fourier features of log eta and a linear map of them, as iTARFlow gives each block.

    The map starts at zero, so that an untrained block takes all levels alike.

    Args:
        width: features of a token.
        noise_std: eta where none is passed.
    """

    def __init__(self, width: int, noise_std: float) -> None:
        super().__init__()
        self.noise_std = noise_std
        self.map = nn.Linear(2 * FREQUENCIES, width)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, noise_std: Tensor | None) -> Tensor:
        """(B,) noise levels -> (B, 1, width); (1, 1, width) for None, the level of the config."""
        weight = self.map.weight
        eta = weight.new_tensor([self.noise_std]) if noise_std is None else noise_std.to(weight.dtype)
        frequencies = 2.0 ** torch.arange(-2, FREQUENCIES - 2, device=weight.device, dtype=weight.dtype)
        angles = frequencies * eta.log()[:, None]  # (B, FREQUENCIES)
        return self.map(torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(FREQUENCIES))[:, None]
