"""The marginal velocity carries the marginals: the fields are known in closed form, the solver is the project's."""

import pytest
import torch

from pipeline.flow_matching.paths import VarianceExploding, VariancePreserving
from pipeline.flow_matching.solvers import Dopri5, integrate
from pipeline.flow_matching.times import time_grid
from tests.pipeline.flow_matching.paths.every import PATHS, Gaussian

MEAN, STD = 0.3, 0.6


def field(velocity, path):
    """With t (B,), looking no further than t_end, as `velocity_of` does."""
    return lambda x, t: velocity(x, t.clamp(min=path.t_end)[:, None])


def run(velocity, path, x_1):
    grid = path.times(time_grid("uniform", 4))
    return integrate(field(velocity, path), x_1, grid, Dopri5(1e-8, 1e-8))


def ends(path):
    return torch.tensor([path.t_end, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_gaussian_data_come_back(path):
    data = Gaussian(path, MEAN, STD)
    (mean_end, mean_1), (std_end, std_1) = (m.tolist() for m in data.moments(ends(path)))
    unit = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = run(data.velocity, path, mean_1 + std_1 * unit)
    # The flow of Gaussian marginals keeps each point at its quantile.
    torch.testing.assert_close(x, mean_end + std_end * unit, rtol=1e-5, atol=1e-5)
    assert (mean_end, std_end) == pytest.approx((MEAN, STD), rel=1e-3)


@pytest.mark.parametrize(
    "path, off",
    [*((path, 0.0) for path in PATHS[:2]), (VariancePreserving(), 0.002), (VarianceExploding(0.01, 20.0), 0.01)],
    ids=repr,
)
def test_what_leaving_the_data_out_of_the_start_costs(path, off):
    data = Gaussian(path, MEAN, STD)
    x = run(data.velocity, path, path.start(torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)))
    # Mean and std of the samples, read off the affine flow. A mean a(1) m that is missing at the start is divided by
    # the std there and multiplied by that at the end.
    (_, mean_1), (std_end, std_1) = (m.tolist() for m in data.moments(ends(path)))
    assert float(x[1]) - MEAN == pytest.approx(-mean_1 / std_1 * std_end, abs=1e-5)
    assert abs(float(x[1]) - MEAN) <= off + 1e-5
    assert float(x[2] - x[0]) / 2 == pytest.approx(STD, rel=1e-3)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_data_of_two_points_come_back(path):
    # Here the variance-preserving velocity is infinite at t = 0: it must not upset an adaptive solver on its way there.
    def velocity(x_t, t):
        a, s, a_slope, s_slope = path.coefficients(t.clamp(min=path.t_end or 1e-5))  # s = 0 would divide
        x = 0.5 * torch.tanh(a * 0.5 * x_t / s**2)  # E[x | x_t] for x = +-0.5
        return a_slope * x + s_slope / s * (x_t - a * x)

    z = torch.tensor([[-2.0], [-1.0], [-0.2], [0.1], [1.5], [3.0]], dtype=torch.float64)
    x = run(velocity, path, path.start(z))
    left = float(path.coefficients(ends(path)).s[0])  # what noise stays
    torch.testing.assert_close(x, 0.5 * z.sign(), rtol=0, atol=4 * left + 1e-4)
