import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pipeline.metrics import Moments, frechet_distance, frechet_warnings, split_half
from storage.errors import InputError


def features(n=500, dimension=12, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dimension)) @ rng.normal(size=(dimension, dimension)) + offset


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_in_batches_equal_those_at_once(offset):
    f = features(offset=offset)
    whole, parts, ranks = Moments.of(f), Moments(12), [Moments(12) for _ in range(3)]
    for i, batch in enumerate(np.array_split(f, 11)):
        parts.update(torch.from_numpy(batch))
        ranks[i % 3].update(batch)
    merged = Moments(12).merge(ranks[0]).merge(ranks[1]).merge(ranks[2])
    for moments in (whole, parts, merged):
        assert moments.count == 500
        np.testing.assert_allclose(moments.mean, f.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(f.T), rtol=1e-6, atol=1e-9)


def test_moments_survive_saving():
    moments = Moments.of(features())
    again = Moments.from_arrays(moments.arrays())
    assert again.count == moments.count and np.array_equal(again.mean, moments.mean)
    assert np.array_equal(again.covariance, moments.covariance)
    assert frechet_distance(again.update(features(seed=1)), moments) > 0  # its arrays are its own
    both = np.concatenate([features(), features(seed=1)])
    np.testing.assert_allclose(again.covariance, np.cov(both.T), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(moments.merge(Moments.of(features(seed=1))).covariance, again.covariance, rtol=1e-9)
    np.testing.assert_array_equal(moments.covariance, moments.covariance.T)


def test_distance_of_known_gaussians():
    # Diagonal covariances commute: sum of (difference of standard deviations)^2, plus the squared shift.
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    z = np.linalg.solve(np.linalg.cholesky(np.cov(z.T)), (z - z.mean(0)).T).T  # mean 0, covariance I exactly
    a, b = Moments.of(z * [1, 2, 3]), Moments.of(z * [2, 2, 5] + [1, 0, 0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1, rel=1e-9)


def test_distance_agrees_with_the_matrix_root():
    a, b = Moments.of(features(seed=1)), Moments.of(features(seed=2, offset=0.3))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [500, 8])  # 8 samples of 12 features: singular
def test_distance_to_itself_is_zero(n):
    moments = Moments.of(features(n))
    assert 0 <= frechet_distance(moments, moments) < 1e-3


def test_split_half_is_the_floor():
    f = features()
    floor = split_half(f)
    assert floor == split_half(torch.from_numpy(f)) and floor != split_half(f, seed=1)
    assert split_half(f, splits=4) != floor
    assert 0 < floor < frechet_distance(Moments.of(f), Moments.of(features(seed=3)))


def test_warnings_carry_their_numbers():
    assert frechet_warnings(50_000, 2048) == []
    assert len(frechet_warnings(5_000, 2048)) == 1 and "5000" in frechet_warnings(5_000, 2048)[0]
    assert len(frechet_warnings(64, 64)) == 2 and "64 features" in frechet_warnings(64, 64)[0]
    assert frechet_warnings(50_000, 2048, held_out=10_000) == []
    singular, few = frechet_warnings(50_000, 2048, held_out=400)
    assert "400" in singular and "400" in few and "50000" not in singular + few
    for more in (300, 400):
        assert frechet_warnings(300, 64, held_out=more) == frechet_warnings(300, 64)


def test_bad_input():
    with pytest.raises(InputError, match="1 of 1 samples"):
        Moments(2).update(np.array([[0.0, np.nan]]))
    with pytest.raises(InputError, match=r"got \(3, 4\)"):
        Moments(2).update(np.zeros((3, 4)))
    with pytest.raises(InputError, match="got 0"):
        frechet_distance(Moments(2), Moments(2))
    with pytest.raises(InputError, match=r"got \(2, 3\)"):
        frechet_distance(Moments(2), Moments(3))
    with pytest.raises(InputError, match="got 3"):
        Moments(2).merge(Moments(3))


def test_singular_covariances():
    # Both of rank 7 of 12, in either order; against the full-rank limit.
    a, b = features(8, seed=1), features(8, seed=2)
    expected = [
        frechet_distance(Moments.of(p), Moments.of(q)) for p, q in [(a, b), (b, a), (a, features()), (features(), a)]
    ]
    assert expected[0] == pytest.approx(expected[1], rel=1e-6)
    assert expected[2] == pytest.approx(expected[3], rel=1e-6)
