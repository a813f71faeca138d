"""Where the tokens of a square image are."""

import torch
from torch import Tensor


def positions(side: int, width: int) -> Tensor:
    """Fixed sines and cosines of the position of each token of a square (arXiv 2212.09748, sec. 3.2).

    The first half of the features tells the column and the second the row, each by ``width / 4`` frequencies that run
    from 1 down to 1e-4, sines before cosines. So the inner product of two positions depends on their offset only.

    Args:
        side: tokens along one side of the square, S.
        width: number of features, a multiple of 4.

    Returns:
        (S^2, width) float32, row by row.
    """
    # In float64 up to the end: float32 angles would cost the last digits of the fastest frequencies.
    frequencies = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (S, width/4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (S, width/2)
    square = (side, side, width // 2)
    return torch.cat([axis[None, :].expand(square), axis[:, None].expand(square)], dim=2).flatten(0, 1).float()
