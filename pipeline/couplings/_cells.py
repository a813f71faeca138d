"""Which point of a finite set a noise belongs to: a Laguerre (power) diagram, one for each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from storage.errors import InputError

SCORES_IN_MEMORY = 2**24  # 64 MiB


def class_order(labels: Tensor) -> Tensor:
    """(N,) int64: the places of all points, class after class."""
    return labels.argsort(stable=True)


def _finite(points: Tensor) -> bool:
    """In parts: a flag for each of many values is a quarter of their memory."""
    parts = points.split(max(1, SCORES_IN_MEMORY // math.prod(points.shape[1:])))
    return all(bool(part.isfinite().all()) for part in parts)


class Cells:
    """Points (N, D), classes apart, and the cells that potentials g (N,) cut the noise into.

    A noise z falls to the point i of its class with the least |z - x_i|^2 - g_i, which has the greatest
    <z, x_i> + (g_i - |x_i|^2) / 2: a maximum inner product search.

    Args:
        points: (N, ...) float32, flattened to (N, D). Kept in the order of the classes, so with classes this is a copy.
        labels: (N,) int64, or None for one class of all, named 0.
        by_class: the points are in `class_order` already, and no copy is made. The labels are not: a point's number is
            its place among them.

    Raises:
        InputError: no points, points that are not finite float32, or labels that are not one class, 0 or more, each.
    """

    def __init__(self, points: Tensor, labels: Tensor | None, by_class: bool = False) -> None:
        if points.ndim < 2 or 0 in points.shape or points.dtype != torch.float32 or not _finite(points):
            raise InputError(
                "The points of semidiscrete transport must be (N, D), finite float32",
                (tuple(points.shape), str(points.dtype)),
                "Give the training images in [-1, 1].",
            )
        if labels is None:
            labels = torch.zeros(len(points), dtype=torch.long)
        labels = labels.cpu()
        if labels.shape != points.shape[:1] or labels.dtype != torch.long or labels.min() < 0:
            raise InputError(
                "Each point must have a class, int64, 0 or more",
                (tuple(labels.shape), str(labels.dtype)),
                "Give labels (N,), or None where there are no classes.",
            )
        self.classes, sizes = labels.unique(return_counts=True)  # (C,) ascending
        self.sizes = sizes.tolist()
        self.order = class_order(labels)
        flat = points.flatten(1)
        self._points = flat if by_class or len(self.classes) == 1 else flat[self.order.to(flat.device)]
        self._first = [0, *sizes.cumsum(0).tolist()]

    @property
    def device(self) -> torch.device:
        return self._points.device

    @property
    def dimension(self) -> int:
        return self._points.shape[1]

    def rows(self, index: int) -> Tensor:
        """(N_c,) int64 on the CPU: where the points of the class number `index` stand among all."""
        return self.order[self._first[index] : self._first[index + 1]]

    def points(self, index: int) -> Tensor:
        """(N_c, D), in the order of `rows`. A view."""
        return self._points[self._first[index] : self._first[index + 1]]

    def half_squares(self, index: int) -> Tensor:
        """|x_i|^2 / 2, (N_c,) float64, in the order of `rows`."""
        parts = self.points(index).split(max(1, SCORES_IN_MEMORY // self.dimension))
        return torch.cat([part.double().square().sum(1) for part in parts]) / 2

    def fall(self, z: Tensor, index: int, offsets: Tensor) -> Tensor:
        """The place in `rows` of the point that each noise falls to, (n,) int64 on the device of the points.

        At most 2^24 scores are in memory at a time, whatever N and D.

        Args:
            z: (n, D) float32 on the device of the points.
            index: number of the class.
            offsets: (g_i - |x_i|^2) / 2, (N_c,) on the device of the points, up to a number added to all.
        """
        # Centred in float64: a common offset must not cost digits of the float32 scores.
        offsets = (offsets - offsets.mean()).float()
        best = z.new_full((len(z),), -torch.inf)
        place = torch.zeros(len(z), dtype=torch.long, device=z.device)
        start = 0
        for part in self.points(index).split(max(1, SCORES_IN_MEMORY // max(1, len(z)))):
            scores = torch.addmm(offsets[start : start + len(part)], z, part.T)  # (n, part)
            value, column = scores.max(dim=1)
            column += start
            better = value > best
            best, place = torch.where(better, value, best), torch.where(better, column, place)
            start += len(part)
        return place
