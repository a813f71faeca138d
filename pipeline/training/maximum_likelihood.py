"""The teacher's objective: maximum likelihood."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pipeline.data.batches import NoisyImages


def nats_per_dimension(flow: nn.Module, part: NoisyImages) -> Tensor:
    """The loss, a scalar: -log p(y | c) per dimension, its mean over the batch, less the log(2 pi) / 2 that no weight
    changes. `flow` may be wrapped, for several ranks or compiled.

    With noise levels an image counts by its level over their mean, since nats vary least at large ones (iTARFlow)."""
    z, logdet = flow(part.y, part.labels, part.noise_std)
    dims = math.prod(part.y.shape[1:])
    if part.noise_std is None:
        return 0.5 * z.square().mean() - logdet.mean() / dims
    nats = 0.5 * z.flatten(1).square().mean(1) - logdet / dims  # (B,)
    return (part.noise_std * nats).mean() / part.noise_std.mean()
