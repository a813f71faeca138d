import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from scipy.special import logit

from pipeline.flow_matching.solvers import RK4, Dopri5, Euler, Heun, Midpoint, trajectory
from pipeline.flow_matching.times import GRIDS, At, LogitNormal, Uniform, UShaped, time_grid
from storage.errors import InputError
from tests.pipeline.flow_matching.solvers.test_order import rotation, sample, start, turned


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


@pytest.mark.parametrize("a", [0.5, 4.0, 50.0])
def test_u_shaped(a):
    times = UShaped(a)
    edges = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(u_shaped_density(edges, a), edges)
    assert mass[-1].item() == pytest.approx(1, abs=1e-6)  # the density is that of the distribution function
    torch.testing.assert_close(mass, u_shaped_cdf(edges, a)[1:], rtol=0, atol=1e-6)
    torch.testing.assert_close(times.quantile(u_shaped_cdf(edges, a)), edges, rtol=0, atol=1e-6)
    ends, middle = u_shaped_density(torch.tensor([0.0, 0.5]), a)
    assert (ends / middle).item() == pytest.approx(math.cosh(a / 2))  # as the recipe's field says
    drawn = draw(times).double()
    assert stats.kstest(drawn.numpy(), lambda t: u_shaped_cdf(torch.from_numpy(t), a).numpy()).pvalue > 0.01


def u_shaped_density(t, a):
    return a * (torch.exp(a * t) + torch.exp(a * (1 - t))) / (2 * math.expm1(a))


def u_shaped_cdf(t, a):
    return (1 + torch.sinh(a * (t - 0.5)) / math.sinh(a / 2)) / 2


def test_u_shaped_times_flatten_towards_uniform_ones():
    shares = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(UShaped(1e-3).quantile(shares), shares, rtol=0, atol=1e-6)


@pytest.mark.parametrize("distribution", [LogitNormal(), LogitNormal(0.0, 50.0), Uniform(), UShaped(50.0), At(1.0)])
def test_shape_type_and_range(distribution):
    t = draw(distribution)
    assert t.shape == (20_000,) and t.dtype == torch.float32
    if distribution != At(1.0):
        assert t.min() > 0 and t.max() < 1
        assert torch.equal(t, draw(distribution)) and not torch.equal(t, draw(distribution, seed=1))


def test_at_one_time():
    assert torch.equal(draw(At(1.0), 3), torch.ones(3))


# --- grids


@pytest.mark.parametrize("kind", GRIDS)
def test_grid_falls_strictly_from_exactly_one_to_exactly_zero(kind):
    for steps in range(1, 201):
        grid = time_grid(kind, steps)
        assert grid.shape == (steps + 1,) and grid.dtype == torch.float64
        assert grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()


@pytest.mark.parametrize("kind", GRIDS)
def test_one_step_is_the_whole_way(kind):
    assert time_grid(kind, 1).tolist() == [1, 0]


def test_quadratic_grid_by_hand():
    assert time_grid("quadratic", 4).tolist() == [1, 0.5625, 0.25, 0.0625, 0]


def test_edm_grid_has_the_noise_levels_of_edm():
    # By hand: the seventh roots run evenly from 80^(1/7) = 1.8701 to 0.002^(1/7) = 0.4116.
    grid = time_grid("edm", 3)
    assert (grid / (1 - grid))[1:].tolist() == pytest.approx([((1.8701 + 0.4116) / 2) ** 7, 0.002, 0], rel=1e-3)
    # The 18 steps of EDM on CIFAR-10; ours start at infinity in place of 80.
    grid = time_grid("edm", 18)
    sigma = (grid / (1 - grid)).tolist()
    assert sigma[0] == math.inf and sigma[-1] == 0
    assert sigma[1:4] == pytest.approx([57.586, 40.786, 28.375], rel=1e-4)
    assert sigma[-4:-1] == pytest.approx([0.022935, 0.0075280, 0.002], rel=1e-4)


@pytest.mark.parametrize("steps", [2, 7, 64])
def test_logit_grid_gives_each_step_its_share_of_training_times(steps):
    grid = time_grid("logit", steps)
    share = stats.norm(-0.2, 1.0).cdf(logit(grid.numpy()))
    assert share.tolist() == pytest.approx([i / steps for i in range(steps, -1, -1)], abs=1e-12)
    drawn = torch.histogram(draw(LogitNormal()).double(), grid.flip(0)).hist / 20_000
    assert drawn.tolist() == pytest.approx([1 / steps] * steps, abs=5 * (1 / steps / 20_000) ** 0.5)


@pytest.mark.parametrize("kind", ["uniform", "quadratic", "logit"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_twice_the_steps_keep_the_times(kind, steps):
    torch.testing.assert_close(time_grid(kind, 2 * steps)[::2], time_grid(kind, steps), rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_edm_keeps_its_inner_times(steps):
    torch.testing.assert_close(time_grid("edm", 2 * steps - 1)[2:-1:2], time_grid("edm", steps)[1:-1])


def test_a_grid_has_a_step():
    with pytest.raises(InputError):
        time_grid("uniform", 0)


@pytest.mark.parametrize("kind", ["edm", "logit"])  # the others: tests/pipeline/solvers/test_order.py
@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), Heun(euler_last=True), RK4()], ids=repr)
def test_the_error_falls_with_the_longest_step_to_the_order(kind, solver):
    # Stiff nowhere, and not exact for any method: dx/dt = (1 + t) J x turns by 3/2 on the way.
    z, counts = start(), [16, 32, 64, 128]
    errors = [(sample(rotation, z, solver, n, kind) - turned(z, 1.0, 0.0)).abs().max().item() for n in counts]
    longest = [-time_grid(kind, n).diff().min().item() for n in counts]
    falls = [[math.log(a / b) for a, b in pairwise(numbers)] for numbers in (errors, longest)]
    orders = [error / step for error, step in zip(*falls, strict=True)]
    # One step of length h errs by h^(order + 1), which is all of the error where the longest are the ends' alone.
    assert all(solver.order - 0.15 < order < solver.order + 1.2 for order in orders)
    if kind == "edm":
        assert orders == pytest.approx([solver.order] * 3, abs=0.15)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("solver", [RK4(), Dopri5(1e-7, 1e-7)], ids=repr)
def test_states_at_every_time_of_every_grid_both_ways(kind, solver):
    z, grid = start(), time_grid(kind, 64)
    for times in (grid, grid.flip(0)):
        states = trajectory(rotation, z, times, solver)
        assert len(states) == 65 and torch.equal(states[0], z)
        for t, state in zip(times.tolist(), states, strict=True):
            torch.testing.assert_close(state, turned(z, times[0].item(), t), atol=2e-5, rtol=0)
