"""Frechet distance between two sets of features, from means and covariances alone."""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dsygst
from torch import Tensor

from storage.errors import InputError


class Moments:
    """Running mean and covariance of features in float64, whatever the batches.

    Sums of squared deviations are merged by the formula of Chan, Golub & LeVeque (1979), so nothing cancels where the
    mean is large compared with the spread.

    Args:
        dimension: features per sample, F.

    Attributes:
        count: samples seen, n.
        mean: (F,) float64.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimension)
        # Sum of outer products of deviations from the mean: its upper triangle, and columns first, for BLAS adds to
        # that in place.
        self._scatter = np.zeros((dimension, dimension), order="F")

    @classmethod
    def of(cls, features: Tensor | np.ndarray) -> Moments:
        """Moments of one (n, F) array."""
        return cls(features.shape[-1]).update(features)

    def update(self, features: Tensor | np.ndarray) -> Moments:
        """Take in another batch, (b, F), and return self.

        Raises:
            InputError: another F, or a feature that is not finite.
        """
        f = features.detach().cpu().double().numpy() if isinstance(features, Tensor) else features.astype(np.float64)
        if f.ndim != 2 or f.shape[1] != len(self.mean):
            raise InputError(
                f"Features must have shape (n, {len(self.mean)})", f.shape, "Use one extractor throughout."
            )
        if not np.isfinite(f).all():
            bad = int((~np.isfinite(f)).any(1).sum())
            raise InputError(
                "Features must be finite",
                f"NaN or infinity in {bad} of {len(f)} samples",
                "Check the images: did the sampler diverge?",
            )
        if len(f):
            mean = f.mean(0)
            self._absorb(len(f), mean, f - mean)
        return self

    def merge(self, other: Moments) -> Moments:
        """Take in what another one, of another rank perhaps, has seen, and return self."""
        if len(other.mean) != len(self.mean):
            raise InputError(
                f"Merged moments must have {len(self.mean)} features", len(other.mean), "Use one extractor throughout."
            )
        if other.count:
            self._scatter += other._scatter
            self._absorb(other.count, other.mean, np.empty((0, len(self.mean))))
        return self

    @property
    def covariance(self) -> np.ndarray:
        """(F, F) float64, with the divisor n - 1.

        Raises:
            InputError: fewer than two samples.
        """
        if self.count < 2:
            raise InputError("The number of samples of a covariance must be >= 2", self.count, "Generate more.")
        return self._symmetric() / (self.count - 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of the state, as arrays that can be saved."""
        return {"count": np.array(self.count, np.int64), "mean": self.mean.copy(), "scatter": self._symmetric()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Moments:
        """What `arrays` gave, bit for bit."""
        moments = cls(len(arrays["mean"]))
        moments.count = int(arrays["count"])
        moments.mean, moments._scatter = arrays["mean"].copy(), np.array(arrays["scatter"], order="F")
        return moments

    def _absorb(self, count: int, mean: np.ndarray, deviations: np.ndarray) -> None:
        """Newcomers by their number, mean and deviations from it; those of a merge are in the scatter already."""
        total = self.count + count
        shift = mean - self.mean
        rows = np.vstack([deviations, shift * np.sqrt(self.count * count / total)])
        self._scatter = dsyrk(1.0, rows.T, beta=1.0, c=self._scatter, overwrite_c=True)  # += rows^T rows
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def _symmetric(self) -> np.ndarray:
        return np.triu(self._scatter) + np.triu(self._scatter, 1).T


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): squared 2-Wasserstein distance of the two Gaussians.

    Dowson & Landau 1982, eq. 4; as an image metric Heusel et al. 2017 (arXiv 1706.08500, eq. 6). With S_a = L L^T, the
    product S_a S_b shares its eigenvalues with the symmetric L^T S_b L, whose roots make up the trace. Rounding can
    make one slightly negative (set to 0), but never the result complex, as with `sqrtm` of the product, which also
    takes many times as long.

    Raises:
        InputError: different dimensions, or fewer than two samples.
    """
    if len(a.mean) != len(b.mean):
        raise InputError(
            "Both sides must have equally many features", (len(a.mean), len(b.mean)), "Use one extractor for both."
        )
    s_a, s_b = a.covariance, b.covariance
    # Of the product only the lower triangle is sure to be there; `eigvalsh` looks at no other.
    cross = np.sqrt(np.linalg.eigvalsh(_product(s_a, s_b)).clip(min=0)).sum()
    shift = a.mean - b.mean
    return max(float(shift @ shift + np.trace(s_a) + np.trace(s_b) - 2 * cross), 0.0)


def split_half(features: Tensor | np.ndarray, seed: int = 0, splits: int = 1) -> float:
    """Distance between two random halves of real features (n, F): the baseline for every distance of samples.

    It is biased up more than a comparison with the whole set, since each half has but n/2 samples; good samples, as
    many as the whole, can score lower.

    Args:
        features: (n, F).
        seed: of the halves.
        splits: number of random splits to average over. A few thousand samples of a few classes need ten: their floor
            varies with the share of each class in each half. Tens of thousands need one.
    """
    f = features.detach().cpu().numpy() if isinstance(features, Tensor) else features
    generator, half, distances = np.random.default_rng(seed), len(f) // 2, []
    for _ in range(splits):
        order = generator.permutation(len(f))
        distances.append(frechet_distance(Moments.of(f[order[:half]]), Moments.of(f[order[half : 2 * half]])))
    return float(np.mean(distances))


def frechet_warnings(n: int, dimension: int, held_out: int | None = None) -> list[str]:
    """Warnings for a distance of F features whose smaller side, generated or real, has n images, and for that to
    `held_out` images, where these are fewer still."""
    sides = {"the smaller side, generated or real,": n}
    if held_out is not None and held_out < n:
        sides["the held-out side"] = held_out
    warnings = [
        f"{side.capitalize()} has {count} images for {dimension} features: its covariance is singular, so the distance "
        f"means little. Use more than {dimension} images."
        for side, count in sides.items()
        if count <= dimension
    ]
    if few := [f"{side} has {count} images" for side, count in sides.items() if count < 10_000]:
        warnings.append(
            f"{', '.join(few).capitalize()}: the distance is biased upwards below 10,000. "
            "Compare it only with distances of the same numbers of images."
        )
    return warnings


def _product(s_a: np.ndarray, s_b: np.ndarray) -> np.ndarray:
    """L^T S_b L with L L^T = S_a: by Cholesky, or where S_a is singular, from too few samples, by its eigenvectors."""
    try:
        # LAPACK's reduction of a generalised eigenproblem is this product, at half the work of two multiplications.
        return dsygst(s_b, np.linalg.cholesky(s_a), itype=2, lower=1)[0]
    except np.linalg.LinAlgError:
        eigenvalues, vectors = np.linalg.eigh(s_a)
        factor = vectors * np.sqrt(eigenvalues.clip(min=0))
        return factor.T @ s_b @ factor
