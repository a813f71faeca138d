import numpy as np
import pytest
import torch

from pipeline.metrics import kid
from pipeline.metrics._kid import squared_mmd
from storage.errors import InputError


def normal(n, dimension=16, seed=0, shift=0.0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed)) + shift


def test_mmd_by_hand():
    # On a line, k(x, y) = (x y + 1)^3. Within {1, 2}: 27. Within {0, 3}: 1. Across: 1, 64, 1, 343.
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    assert squared_mmd(x, y) == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4, rel=1e-12)


def test_mmd_against_loops():
    x, y = normal(7).numpy().astype(float), normal(5, seed=1, shift=0.5).numpy().astype(float)

    def k(a, b):
        return (a @ b / 16 + 1) ** 3

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    found = squared_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)


def test_its_expectation_is_the_distance_of_the_distributions():
    # x ~ N(0, 1) and y ~ N(m, 1) on a line: (xy + 1)^3 = x^3 y^3 + 3 x^2 y^2 + 3 xy + 1, so that the squared MMD is
    # (E x^3 - E y^3)^2 + 3 (E x^2 - E y^2)^2 + 3 (E x - E y)^2, with E y^3 = m^3 + 3 m and E y^2 = m^2 + 1.
    m = 0.5
    expected = (m**3 + 3 * m) ** 2 + 3 * m**4 + 3 * m**2
    found = kid(normal(50_000, 1), normal(50_000, 1, seed=1, shift=m))
    assert (found.subsets, found.size) == (50, 1000)
    assert 0 < found.standard_error < 0.1 * expected
    assert abs(found.value - expected) < 3 * found.standard_error


@pytest.mark.parametrize("n", [20_000, 400, 20])  # 400 and 20 in subsets of 40 and 2: unbiased all the same
def test_equal_distributions_are_at_zero_within_the_standard_error(n):
    rounds = [kid(normal(n, seed=2 * i), normal(n, seed=2 * i + 1)) for i in range(3 if n > 1000 else 200)]
    values = np.array([r.value for r in rounds])
    errors = np.array([r.standard_error for r in rounds])
    assert abs(values.mean()) < 3 * np.sqrt((errors**2).sum()) / len(rounds)
    assert (values < 0).any()  # an estimate with a floor would not be unbiased
    if len(rounds) > 100:  # and the standard error is what values really spread by
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.25)


def test_no_feature_is_used_twice():
    real, generated = normal(107), normal(95, seed=1)
    found = kid(real, generated, seed=3)
    assert (found.subsets, found.size) == (10, 9)
    generator = np.random.default_rng(3)
    rows = [generator.permutation(n)[:90].reshape(10, 9) for n in (107, 95)]
    distances = [squared_mmd(real[a], generated[b]) for a, b in zip(*rows, strict=True)]
    assert found.value == pytest.approx(np.mean(distances)) and len(np.unique(rows[0])) == 90
    assert found.standard_error == pytest.approx(np.std(distances, ddof=1) / 10**0.5)
    assert found == kid(real, generated, seed=3) != kid(real, generated, seed=4)


def test_bad_input():
    with pytest.raises(InputError, match=r"got \(\(50, \d+\), \(50, 8\)\)"):
        kid(normal(50), normal(50, 8))
    with pytest.raises(InputError, match=r"got \(19, 50\)"):
        kid(normal(19), normal(50))
    with pytest.raises(InputError, match="finite"):
        kid(normal(50), normal(50) / 0)
