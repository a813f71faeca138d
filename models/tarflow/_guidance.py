"""Classifier-free guidance of the affine maps."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """Move log-scale and shift away from those of a weaker prediction (Zhai et al. 2024, arXiv 2412.06329).

    With the weak prediction a_u, b_u and a weight w,

        a <- a + w (a - a_u),    b <- b + w (b - b_u).

    The weak prediction drops the label and may have another attention temperature. Guidance acts on the log-scale
    before it is bounded, and so cannot break the bound.

    Args:
        scale: the weight w, at least 0; 0 is no guidance.
        annealed: let the weight grow with the token's place i in its block's order, w_i = scale i / (T - 1), so that it
            reaches ``scale`` at the last.
    """

    scale: float
    annealed: bool = False

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"guidance scale must be at least 0, got {self.scale}; 0 turns guidance off")

    def weights(self, tokens: int, like: Tensor) -> Tensor:
        """(T, 1): the weight at each of T tokens, with the device and dtype of ``like``."""
        if self.annealed:
            return torch.linspace(0, self.scale, tokens, device=like.device, dtype=like.dtype)[:, None]
        return like.new_full((tokens, 1), self.scale)
