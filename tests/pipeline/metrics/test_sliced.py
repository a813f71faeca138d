import math

import pytest
import torch
from scipy.stats import norm, wasserstein_distance_nd

from pipeline.metrics import sliced_w2, sliced_w2_to_normal
from pipeline.metrics._sliced import _common_refinement, _normal_quantile_means
from storage.errors import InputError


def normal(n, dimension, seed=0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed))


def test_one_dimension_against_numerical_integration():
    z = normal(7, 1)
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    quantile = z.double().sort(0).values[:, 0][(u * 7).long()]
    expected = (quantile - torch.from_numpy(norm.ppf(u.numpy()))).square().mean().sqrt().item()
    assert sliced_w2_to_normal(z, projections=3) == pytest.approx(expected, rel=1e-4)


def test_quantile_means_are_centred_and_grow():
    q = _normal_quantile_means(1000)
    assert q.sum().abs() < 1e-9 and (q.diff() > 0).all()
    assert q.square().mean().item() == pytest.approx(1, abs=0.01)


def test_true_noise_scores_little_and_less_with_more():
    scores = [sliced_w2_to_normal(normal(n, 64)) for n in (500, 5_000, 20_000)]
    assert 0.1 > scores[0] > 2 * scores[1] > 2 * scores[2] > 0


def test_known_distances():
    z = normal(5_000, 64)
    # Scaling by s moves each projection by |s - 1|; a shift m moves it by (m . direction), of mean square |m|^2 / D.
    assert sliced_w2_to_normal(1.5 * z) == pytest.approx(0.5, abs=0.02)
    assert sliced_w2_to_normal(z + 2) == pytest.approx(2, rel=0.1)
    assert sliced_w2(z, 1.5 * z) == pytest.approx(0.5, abs=0.01)
    assert sliced_w2(z, z) == 0


def test_unequal_sizes():
    a, b = normal(30, 3), normal(20, 3, seed=1)
    # Repeating all samples of a set changes nothing in its distribution.
    assert sliced_w2(a, b) == pytest.approx(sliced_w2(a.repeat(2, 1), b.repeat(3, 1)), rel=1e-6)
    weights, of_a, of_b = _common_refinement(30, 20)
    assert weights.sum().item() == pytest.approx(1) and of_a.max() == 29 and of_b.max() == 19


def test_one_dimension_against_scipy():
    a, b = normal(25, 1), normal(25, 1, seed=1) * 2
    # scipy has W1 only; for equal sizes on a line both pair sorted samples.
    pairs = (a.sort(0).values - b.sort(0).values).double()
    assert wasserstein_distance_nd(a, b) == pytest.approx(pairs.abs().mean().item(), rel=1e-5)
    assert sliced_w2(a, b) == pytest.approx(math.sqrt(pairs.square().mean()), rel=1e-5)


def test_images_and_seeds():
    z = normal(50, 48)
    assert sliced_w2_to_normal(z.reshape(50, 3, 4, 4)) == sliced_w2_to_normal(z)
    assert sliced_w2_to_normal(z, seed=1) != sliced_w2_to_normal(z)


def test_bad_input():
    with pytest.raises(InputError, match="got 1"):
        sliced_w2_to_normal(normal(1, 4))
    with pytest.raises(InputError, match=r"got \(4, 3\)"):
        sliced_w2(normal(5, 4), normal(5, 3))
