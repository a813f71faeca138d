import pytest
import torch
from scipy import stats
from scipy.special import logit

from pipeline.times import At, LogitNormal, Uniform, time_distribution, time_grid
from storage.errors import InputError


def draw(distribution, n=20_000, seed=0):
    return distribution.sample(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mean, std", [(-0.2, 1.0), (-1.2, 1.2), (0.5, 0.3)])
def test_logit_normal(mean, std):
    t = draw(LogitNormal(mean, std)).double().numpy()
    assert stats.kstest(logit(t), stats.norm(mean, std).cdf).pvalue > 0.01


def test_skewed_sampler_of_flow_matching():
    # Known of that code, in our time: mean 0.281, median 0.232.
    t = draw(LogitNormal(-1.2, 1.2), 200_000)
    assert t.mean() == pytest.approx(0.281, abs=2e-3)
    assert t.median() == pytest.approx(0.232, abs=2e-3)


def test_uniform():
    assert stats.kstest(draw(Uniform()).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("distribution", [LogitNormal(), LogitNormal(0.0, 50.0), Uniform(), At(1.0)])
def test_shape_type_and_range(distribution):
    t = draw(distribution)
    assert t.shape == (20_000,) and t.dtype == torch.float32
    if distribution != At(1.0):
        assert t.min() > 0 and t.max() < 1
        assert torch.equal(t, draw(distribution)) and not torch.equal(t, draw(distribution, seed=1))


def test_at_one_time():
    assert torch.equal(draw(At(1.0), 3), torch.ones(3))


def test_from_plain_data():
    assert time_distribution({"kind": "logit-normal", "mean": 0.1, "std": 2.0}) == LogitNormal(0.1, 2.0)
    assert time_distribution({"kind": "logit-normal"}) == LogitNormal(-0.2, 1.0)
    assert time_distribution({"kind": "uniform"}) == Uniform()
    assert time_distribution({"kind": "at", "time": 1.0}) == At(1.0)


@pytest.mark.parametrize("spec", [{}, {"kind": "beta"}, {"kind": "uniform", "mean": 0.0}])
def test_bad_plain_data(spec):
    with pytest.raises(InputError):
        time_distribution(spec)


@pytest.mark.parametrize("make", [lambda: LogitNormal(0, 0), lambda: LogitNormal(float("nan")), lambda: At(1.5)])
def test_bad_numbers(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("kind", ["uniform", "quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 16, 128])
def test_grid_falls_from_one_to_zero(kind, steps):
    grid = time_grid(kind, steps)
    assert grid.shape == (steps + 1,) and grid[0] == 1 and grid[-1] == 0
    assert (grid.diff() < 0).all()


def test_quadratic_grid_by_hand():
    assert time_grid("quadratic", 4).tolist() == [1, 0.5625, 0.25, 0.0625, 0]


@pytest.mark.parametrize("kind, steps", [("cosine", 4), ("uniform", 0)])
def test_bad_grid(kind, steps):
    with pytest.raises(InputError):
        time_grid(kind, steps)
