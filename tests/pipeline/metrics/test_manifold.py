import numpy as np
import pytest
import torch

from pipeline.metrics import _manifold, manifold
from storage.errors import InputError


def normal(n, dimension=8, seed=0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed))


def by_loops(real, generated, few, many):
    """All four from their definitions, one pair at a time."""
    x, y = real.double().numpy(), generated.double().numpy()

    def radii(points, k):
        return [
            sorted(np.linalg.norm(p - q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]

    def inside(points, centres, k):
        reach = radii(centres, k)
        return np.array([[np.linalg.norm(p - c) <= r for c, r in zip(centres, reach, strict=True)] for p in points])

    dense = inside(y, x, many)
    return (
        inside(y, x, few).any(1).mean(),
        inside(x, y, few).any(1).mean(),
        dense.sum() / (many * len(y)),
        dense.any(0).mean(),
    )


@pytest.mark.parametrize("neighbours", [(3, 5), (1, 2)])
@pytest.mark.parametrize("at_once", [2**24, 100, 1])  # in one piece, in several that do not divide, row by row
def test_against_loops(neighbours, at_once, monkeypatch):
    monkeypatch.setattr(_manifold, "_DISTANCES_IN_MEMORY", at_once)
    real, generated = normal(37), normal(29, seed=1) * 0.7 + 0.5
    found = manifold(real, generated, neighbours)
    expected = by_loops(real, generated, *neighbours)
    assert all(0 < value < 1 for value in expected[:2]) and expected[2] != expected[0]
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected, abs=1e-12)
    assert (found.real, found.generated, found.neighbours) == (37, 29, neighbours)


def test_by_hand():
    # On a line, k = 1. Balls of real 0, 1, 4: [-1, 1], [0, 2], [1, 7]. Of generated 2, 2.5, 9: radii 1/2, 1/2, 13/2.
    real, generated = torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([[2.0], [2.5], [9.0]])
    found = manifold(real, generated, (1, 1))
    assert found.precision == pytest.approx(2 / 3)  # 2 and 2.5
    assert found.recall == pytest.approx(1 / 3)  # 4, in [2.5, 15.5]
    assert found.density == pytest.approx((2 + 1 + 0) / 3)
    assert found.coverage == pytest.approx(2 / 3)  # balls of 1 and 4


def test_disjoint_sets():
    found = manifold(normal(50), normal(60, seed=1) + 100)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


@pytest.mark.parametrize("offset", [0.0, 1e3])  # with an offset, squared distances lose digits to cancellation
def test_a_set_with_itself(offset):
    points = normal(200) + offset
    found = manifold(points, points.clone())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(6 / 5)  # each ball holds its centre and five neighbours


def test_exact_copies_have_balls_of_radius_zero():
    points = normal(5).repeat_interleave(6, dim=0) + 10
    found = manifold(points, points[::6].repeat(6, 1))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_equal_distributions_have_density_one():
    rounds = [manifold(normal(500, seed=2 * i), normal(400, seed=2 * i + 1)) for i in range(20)]
    densities = np.array([r.density for r in rounds])
    assert abs(densities.mean() - 1) < 4 * densities.std(ddof=1) / 20**0.5
    # With as many samples, a real ball is empty with the chance that the k nearest of both sets are all real: 2^-k.
    coverages = [manifold(normal(500, seed=2 * i), normal(500, seed=2 * i + 1)).coverage for i in range(20)]
    assert np.mean(coverages) == pytest.approx(1 - 2**-5, abs=0.01)


def test_a_model_with_one_mode_is_precise_without_recall():
    found = manifold(normal(500), normal(500, seed=1) * 0.1)
    assert found.precision == 1 and found.recall < 0.1 and found.coverage < 0.7


def test_bad_input():
    with pytest.raises(InputError, match=r"got \(\(50, \d+\), \(50, 4\)\)"):
        manifold(normal(50), normal(50, 4))
    with pytest.raises(InputError, match=r"got \(5, 50\)"):
        manifold(normal(5), normal(50))
    with pytest.raises(InputError, match="finite"):
        manifold(normal(50) / 0, normal(50))
    with pytest.raises(InputError, match=r"got \(0, 5\)"):
        manifold(normal(50), normal(50), (0, 5))
