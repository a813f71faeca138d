"""Distances of samples to their nearest training images, with held-out images as the yardstick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.errors import InputError

NEAR_QUANTILE = 0.05  # of the distances of held-out images that are no training images: samples up to it are near
_DISTANCES_IN_MEMORY = 2**24


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training image, root mean square per dimension.

    Attributes:
        samples: (min, median, max) of generated images.
        held_out: the same of real images that were not trained on.
        copies: share of samples as near to a training image as the nearest 5 % of the held-out images are, of those
            that are no training images themselves. About 0.05 is chance.
        near: the threshold of that share, the 5th percentile of these held-out images; 0 where there are none.
    """

    samples: tuple[float, float, float]
    held_out: tuple[float, float, float]
    copies: float
    near: float


# Images of a sampler that are kept for this and for pictures: percentiles of more distances change little, and each is
# compared with all training images.
STORED_SAMPLES = 1_000


def nearest(queries: Tensor, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The nearest training image of each query, among images that come in parts: no more is in memory.

    Args:
        queries: (M, ...) in the units of images.
        parts: all N training images in their order, each part (n, ...) of the same size.

    Returns:
        distances (M,) float32, root mean square per dimension, so that they can be read in units of grey value; and
        rows of the nearest image (M,) int64, the first where several are equally near.

    Raises:
        InputError: no training images, or of another size.
    """
    queries = queries.detach().flatten(1).float()
    best = queries.new_full((len(queries),), torch.inf)
    rows = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    seen = 0
    for part in parts:
        train = part.detach().flatten(1).float()
        if queries.shape[1] != train.shape[1]:
            raise _unlike(queries, train)
        for first in range(
            0, len(queries) if len(train) else 0, step := max(1, _DISTANCES_IN_MEMORY // max(1, len(train)))
        ):
            # Exactly 0 for copies, which the faster expansion through a matrix product would miss.
            closest = torch.cdist(
                queries[first : first + step], train, compute_mode="donot_use_mm_for_euclid_dist"
            ).min(dim=1)
            nearer = closest.values < best[first : first + step]  # the first of equal ones stays
            best[first : first + step][nearer] = closest.values[nearer]
            rows[first : first + step][nearer] = closest.indices[nearer] + seen
        seen += len(train)
    if not seen:
        raise _unlike(queries, queries[:0])
    return best / queries.shape[1] ** 0.5, rows


def _unlike(queries: Tensor, train: Tensor) -> InputError:
    return InputError(
        "Neighbours are sought among images of one size",
        (tuple(queries.shape), tuple(train.shape)),
        "Give images of the same data set.",
    )


def judged(of_samples: Tensor, of_held_out: Tensor) -> Memorisation:
    """The comparison of distances to nearest training images, of samples (M,) and held-out images (K,)."""
    new = of_held_out[of_held_out > 0]
    near = new.quantile(NEAR_QUANTILE) if len(new) else of_held_out.new_zeros(())
    copies = float((of_samples <= near).double().mean())
    return Memorisation(_spread(of_samples), _spread(of_held_out), copies, float(near))


def _spread(distances: Tensor) -> tuple[float, float, float]:
    return float(distances.min()), float(distances.median()), float(distances.max())
