"""Are samples copies of training images? Distances to the nearest one, with held-out images as the yardstick."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from storage.errors import InputError

_AT_ONCE = 2**24  # distances in memory at a time


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training image, root mean square per dimension.

    Attributes:
        samples: (min, median, max) of generated images.
        held_out: the same of real images that were not trained on.
        ratio: of the medians. Near 1 for a good model; far below 1 if it repeats what it was trained on.
        copies: share of samples nearer to a training image than 99 % of the held-out images are. About 0.01 is chance.
    """

    samples: tuple[float, float, float]
    held_out: tuple[float, float, float]
    ratio: float
    copies: float

    def asdict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return asdict(self)


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest training image of each query.

    Args:
        queries: (M, ...) in the units of images.
        train: (N, ...), of the same size.

    Returns:
        distances (M,) float32, root mean square per dimension, so that they can be read in units of grey value; and
        rows of the nearest image (M,) int64, the first where several are equally near.

    Raises:
        InputError: no training images, or of another size.
    """
    queries, train = queries.detach().flatten(1).float(), train.detach().flatten(1).float()
    if len(train) == 0 or queries.shape[1] != train.shape[1]:
        found = (tuple(queries.shape), tuple(train.shape))
        raise InputError("Neighbours are sought among images of one size", found, "Give images of the same data set.")
    best = [
        # Exactly 0 for copies, which the faster expansion through a matrix product would miss.
        torch.cdist(part, train, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
        for part in queries.split(max(1, _AT_ONCE // len(train)))
    ]
    if not best:
        return queries.new_zeros(0), torch.zeros(0, dtype=torch.long)
    return torch.cat([b.values for b in best]) / train.shape[1] ** 0.5, torch.cat([b.indices for b in best])


def memorisation(samples: Tensor, held_out: Tensor, train: Tensor) -> Memorisation:
    """Compare how near samples (M, ...) and held-out images (K, ...) come to training images (N, ...).

    Raises:
        InputError: one of them is empty, or they differ in size.
    """
    if min(len(samples), len(held_out)) == 0:
        raise InputError("Memorisation needs samples and held-out images", (len(samples), len(held_out)), "Give both.")
    of_samples, of_held_out = nearest(samples, train)[0], nearest(held_out, train)[0]
    near = of_held_out.quantile(0.01)
    return Memorisation(
        _spread(of_samples),
        _spread(of_held_out),
        float(of_samples.median() / of_held_out.median().clamp(min=1e-12)),
        float((of_samples < near).float().mean()),
    )


def _spread(distances: Tensor) -> tuple[float, float, float]:
    return float(distances.min()), float(distances.median()), float(distances.max())
