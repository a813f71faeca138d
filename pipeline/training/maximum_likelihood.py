"""The teacher's objective: maximum likelihood."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pipeline.data.batches import NoisyImages


def nats_per_dimension(flow: nn.Module, part: NoisyImages, mean_level: float = 1.0) -> Tensor:
    """The loss, a scalar: -log p(y | c) per dimension, its mean over the batch, less the log(2 pi) / 2 that no weight
    changes. `flow` may be wrapped, for several ranks or compiled.

    With noise levels an image counts by its level over `mean_level`, that of all levels, since nats vary least at large
    ones (iTARFlow). The mean of a part would make the loss depend on how a batch is divided."""
    z, logdet = flow(part.y, part.labels, part.noise_std)
    dims = math.prod(part.y.shape[1:])
    if part.noise_std is None:
        return 0.5 * z.square().mean() - logdet.mean() / dims
    nats = 0.5 * z.flatten(1).square().mean(1) - logdet / dims  # (B,)
    return (part.noise_std * nats).mean() / mean_level
