"""What a coupling leaves to be learnt, against closed forms for Gaussians."""

import math

import pytest
import torch

from pipeline.couplings import Independent, MinibatchOT
from pipeline.flow_matching.paths import LINEAR
from pipeline.metrics import _velocity_variance, velocity_variance
from pipeline.metrics._velocity_variance import neighbour_means
from storage.errors import InputError

TIMES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gaussian_velocity(y, t, variance=1.0):
    """E[v | x_t = y] for data N(0, variance I), noise N(0, I) and independent coupling.

    LOOM-CFM, arXiv 2603.15279, Appendix A, where the variance is 1 and time and velocity have the other sign: v and x_t
    are jointly Gaussian, with Cov(v, x_t) = t - (1 - t) variance and Var x_t = t^2 + (1 - t)^2 variance.
    """
    return y * (t - (1 - t) * variance) / (t**2 + (1 - t) ** 2 * variance)


def gaussian_variance(t, variance=1.0):
    """Var(v | x_t) per dimension, of the same: Var v less the square of the slope times Var x_t."""
    return variance / (t**2 + (1 - t) ** 2 * variance)


@pytest.mark.parametrize("dimension", [1, 2, 64])
@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_independent_gaussians(dimension, variance):
    x, z = normal(3000, dimension) * variance**0.5, normal(3000, dimension, seed=1)
    expected = [gaussian_variance(t, variance) for t in TIMES]
    assert velocity_variance(x, z, TIMES) == pytest.approx(expected, rel=0.08 if dimension < 64 else 0.02)


def test_gaussians_of_unequal_variance_in_a_turned_frame():
    """Each principal axis of x has a slope of its own."""
    turn = torch.linalg.qr(normal(32, 32, seed=5)).Q
    variances = torch.logspace(-2, 1, 32)
    x, z = (normal(3000, 32) * variances.sqrt()) @ turn, normal(3000, 32, seed=1)
    expected = [sum(gaussian_variance(t, v) for v in variances.tolist()) / 32 for t in TIMES]
    assert velocity_variance(x, z, TIMES) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("monotone", [lambda z: z, lambda z: 0.3 * z + 2, lambda z: z + torch.tanh(3 * z)])
def test_a_monotone_coupling_leaves_nothing(monotone):
    z = normal(2000, 1)
    assert max(velocity_variance(monotone(z), z, TIMES)) < 0.01
    assert velocity_variance(-z, z, [0.5])[0] > 3  # where all lines cross: v = 2z and x_t = 0


def test_two_points_by_hand():
    """x = +-1 at t = 1/2: x_t tells x by its odds, and Var(v | x_t) = 4 Var(x | x_t) = 4 (1 - tanh(4 x_t)^2) there."""
    x, z = normal(6000, 1).sign(), normal(6000, 1, seed=1)
    x_t = (x + z).double() / 2
    # v = z - x = 2 x_t - 2x, and log p(x_t | +1) - log p(x_t | -1) = ((2 x_t + 1)^2 - (2 x_t - 1)^2) / 2 = 4 x_t.
    expected = float((4 * (1 - torch.tanh(2 * x_t).square())).mean())
    assert velocity_variance(x, z, [0.5])[0] == pytest.approx(expected, rel=0.05)


def test_better_couplings_leave_less():
    x, rows = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1, torch.arange(1000)
    found = [
        velocity_variance(x, coupling.noise_for(x, None, rows, torch.Generator().manual_seed(3)), [0.5])[0]
        for coupling in (Independent(), MinibatchOT())
    ]
    assert found[1] < 0.1 * found[0]


def test_within_classes():
    """Classes far apart and each a Gaussian: knowing the class leaves only its own variance."""
    labels = torch.arange(3000) % 3
    x, z = normal(3000, 2) + 3.0 * labels[:, None], normal(3000, 2, seed=1)
    expected = [gaussian_variance(t) for t in (0.5, 0.9)]
    assert velocity_variance(x, z, (0.5, 0.9), labels=labels) == pytest.approx(expected, rel=0.08)
    assert velocity_variance(x, z, (0.5, 0.9))[1] > 1.2 * expected[1]


def test_number_of_neighbours_is_corrected_for():
    x, z = normal(2000, 8), normal(2000, 8, seed=1)
    for neighbours in (1, 3, 30):
        assert velocity_variance(x, z, [0.5], neighbours)[0] == pytest.approx(2, rel=0.06)


def test_neighbour_means_by_brute_force(monkeypatch):
    places, values = normal(60, 3), normal(60, 2, seed=1)
    distances = (places[:, None] - places).square().sum(2).fill_diagonal_(math.inf)
    expected = values[distances.argsort(1)[:, :4]].mean(1)
    for at_once in (2**24, 200, 1):
        monkeypatch.setattr(_velocity_variance, "_DISTANCES_IN_MEMORY", at_once)
        torch.testing.assert_close(neighbour_means(places, values, 4), expected)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_neighbours_find_the_closed_field_of_gaussians(t):
    x, z = normal(5000, 1), normal(5000, 1, seed=1)
    x_t, v = LINEAR.interpolate(x, z, t), LINEAR.target_velocity(x, z, t)
    inside = x_t[:, 0].abs() < 1.5 * math.sqrt(t**2 + (1 - t) ** 2)  # further out they lie all on one side
    error = (neighbour_means(x_t, v, 200) - gaussian_velocity(x_t, t))[inside]
    assert error.square().mean().sqrt() < 2 * math.sqrt(gaussian_variance(t) / 200) and inside.sum() > 4000


def test_training_finds_the_closed_field_of_gaussians():
    """Flow matching of a small network on independent pairs; its paths turn, as in the paper's Figure 1a."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2)
    )
    optimizer, source = torch.optim.Adam(net.parameters(), 2e-2), torch.Generator().manual_seed(1)
    steps, coupling, losses = 800, Independent(), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / steps)
        x = torch.randn(1024, 2, generator=source)
        z = coupling.noise_for(x, None, torch.arange(1024), source)
        t = torch.rand(1024, generator=source)
        velocity = net(torch.cat([LINEAR.interpolate(x, z, t), t[:, None]], 1))
        loss = (velocity - LINEAR.target_velocity(x, z, t)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        for t in (0.05, 0.25, 0.5, 0.75, 0.95):
            y = torch.randn(2000, 2, generator=source) * math.sqrt(t**2 + (1 - t) ** 2)
            found = net(torch.cat([y, torch.full((2000, 1), t)], 1))
            assert (found - gaussian_velocity(y, t)).square().mean().sqrt() < 0.12
    # And what is left of the loss is the integral of the variance, pi / 2.
    assert sum(losses[-200:]) / 200 == pytest.approx(math.pi / 2, rel=0.03)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"z": torch.zeros(40, 3)}, r"got \(\(40, 2\), \(40, 3\), None\)"),
        ({"labels": torch.zeros(7)}, r"\(7,\)"),
        ({"times": (0.5, 1.5)}, "got 1.5"),
        ({"neighbours": 0}, "got 0"),
        ({"neighbours": 40}, "in a class, 40"),
        ({"labels": torch.arange(40) % 4}, "in a class, 10"),
    ],
)
def test_refuses(change, rule):
    with pytest.raises(InputError, match=rule):
        velocity_variance(**{"x": torch.zeros(40, 2), "z": torch.zeros(40, 2), "times": TIMES, **change})
