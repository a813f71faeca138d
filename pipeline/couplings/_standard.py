"""A teacher's output at the scale of N(0, I), and whitened within classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from storage.errors import RecipeError

LARGEST = 2**30  # numbers of all classes' matrices: 4 GiB


class Whitening(NamedTuple):
    """z' = W_c (z - m_c): within each class c a mean of 0 and a covariance of I, by the map nearest to the identity.

    mean: m_c, (classes, D) float32, D = C * H * W.
    matrix: W_c, (classes, D, D) float32, symmetric.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """z (B, C, H, W) and its classes (B,), None where there are none, to z' (B, C, H, W), all on one device."""
        labels = torch.zeros(len(z), dtype=torch.int64, device=z.device) if labels is None else labels
        white = torch.empty_like(z)
        for label in labels.unique().tolist():
            rows = labels == label
            centred = z[rows].flatten(1) - self.mean[label]
            white[rows] = (centred @ self.matrix[label]).view_as(z[rows])
        return white


@dataclass(frozen=True)
class Standard:
    """Turns a teacher's output f (B, C, H, W) with classes (B,) into noise: f / sigma_f, whitened if the bank is."""

    sigma: float
    whitening: Whitening | None = None

    def __call__(self, f: Tensor, labels: Tensor | None) -> Tensor:
        z = f / self.sigma
        return z if self.whitening is None else self.whitening(z, labels)


class ClassMoments:
    """Mean and covariance of one class's noises of D numbers, and their whitening.

    The sums start with those of D noises of N(0, I), so that the covariance of few noises can be inverted too: none
    gives the identity, and of n noises the estimate has the weight n / (n + D).
    """

    def __init__(self, values: int) -> None:
        self.count = values
        self.sum = torch.zeros(values, dtype=torch.float64)
        self.products = values * torch.eye(values, dtype=torch.float64)

    def add(self, z: Tensor) -> None:
        """Count z (B, C, H, W) in; sums in float64."""
        rows = z.flatten(1).double().cpu()
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def whitening(self) -> tuple[Tensor, Tensor]:
        """m (D,) and W = C^(-1/2), (D, D), both float32."""
        mean = self.sum / self.count
        variances, directions = torch.linalg.eigh(self.products / self.count - torch.outer(mean, mean))
        return mean.float(), ((directions * variances.rsqrt()) @ directions.T).float()


def check_whitening(classes: int, values: int) -> None:
    """Raises RecipeError where all classes' matrices are too large to compute with."""
    if classes * values**2 > LARGEST:
        raise RecipeError(
            f"bank.whiten needs classes x values^2 of at most {LARGEST}",
            f"{classes} x {values}^2",
            "Leave it out, or make the images smaller.",
        )
