import pytest
import torch

from pipeline.flow_matching.paths import (
    LINEAR,
    VariancePreserving,
    network_input,
    network_target,
    preconditioning,
    velocity_of,
)
from pipeline.flow_matching.paths._network import DATA_STD
from pipeline.flow_matching.sampling import student_samples
from pipeline.flow_matching.solvers import SOLVERS, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.recipe.sections import Sweep
from tests.pipeline.flow_matching.paths.every import PATHS, Gaussian, inner, pair

CURVED = [path for path in PATHS if not path.straight]
curved_paths = pytest.mark.parametrize("path", CURVED, ids=repr)


def test_there_are_two_of_each():
    assert len(CURVED) == 2 == len(PATHS) - len(CURVED)


@pytest.mark.parametrize("path", [path for path in PATHS if path.straight], ids=repr)
def test_on_a_straight_path_the_network_is_the_velocity(path):
    def network(x, t, labels):
        return x

    x, z, t = pair(torch.float32)
    assert velocity_of(network, path) is network
    assert network_input(path, x, t) is x
    assert torch.equal(network_target(path, x, z, t), path.target_velocity(x, z, t))
    assert [factor.tolist() for factor in preconditioning(path, t)] == [[1.0] * 5, [0.0] * 5, [1.0] * 5]


def moments(path, std, t):
    """Variances of the network's input and target and their covariance, for data of this std: (T,) each.

    Both are linear in (x, z), so x = z = 0 but one shows their coefficients.
    """
    one, none = torch.ones(len(t), 1, dtype=t.dtype), torch.zeros(len(t), 1, dtype=t.dtype)
    shown = [
        (network_input(path, path.interpolate(*xz, t), t)[:, 0], network_target(path, *xz, t)[:, 0])
        for xz in ((std * one, none), (none, one))
    ]
    (in_x, out_x), (in_z, out_z) = shown
    return in_x**2 + in_z**2, out_x**2 + out_z**2, in_x * out_x + in_z * out_z


@curved_paths
def test_input_and_target_have_unit_variance(path):
    t = path.times(torch.linspace(0, 1, 200, dtype=torch.float64))
    given, asked, together = moments(path, DATA_STD, t)
    torch.testing.assert_close(given, torch.ones_like(t))
    torch.testing.assert_close(asked, torch.ones_like(t))
    torch.testing.assert_close(together, torch.zeros_like(t))  # nothing linear is left for the network


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("std", [0.25, 0.5, 0.85, 1.0])
def test_input_and_target_have_unit_order_for_other_data(path, std):
    for t in (
        path.times(torch.linspace(0, 1, 200, dtype=torch.float64)),
        path.times(torch.linspace(0, 1, 200)).double(),
    ):
        for variance in moments(path, std, t)[:2]:
            assert variance.min() >= 0.2**2 and variance.max() <= 3**2


@curved_paths
def test_target_is_the_velocity_in_the_networks_units(path):
    x, z, t = pair()
    x_t = path.interpolate(x, z, t)
    velocity = velocity_of(lambda scaled, t, labels: network_target(path, x, z, t), path)
    torch.testing.assert_close(velocity(x_t, t, None), path.target_velocity(x, z, t))


@curved_paths
def test_the_optimal_network_gives_the_marginal_velocity(path):
    # For Gaussian data the best network is linear: the regression of the target on the input, done here by moments.
    std, t = 0.8, inner(path)
    given, _, together = moments(path, std, t)
    velocity = velocity_of(lambda scaled, t, labels: (together / given)[:, None] * scaled, path)
    x_t = path.coefficients(t).s[:, None] * torch.tensor([[-1.5, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(velocity(x_t, t, None), Gaussian(path, 0.0, std).velocity(x_t, t[:, None]))


@curved_paths
def test_an_untrained_network_already_transports_the_std(path):
    # A network that answers 0 leaves the linear guess, exact for Gaussian data of std DATA_STD.
    z = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    x, calls = student_samples(lambda x, t, labels: torch.zeros_like(x), z, None, Sweep(solver="dopri5"), 0, path)
    assert calls > 10
    torch.testing.assert_close(x, DATA_STD * z, rtol=2e-3, atol=1e-3)


def test_times_before_the_end_are_taken_for_the_end():
    path, seen = VariancePreserving(), []

    def network(x, t, labels):
        seen.append(t)
        return x

    x = pair(torch.float32)[0]
    velocity = velocity_of(network, path)
    beyond = velocity(x, torch.full((5,), -0.1), None)
    assert torch.equal(beyond, velocity(x, torch.full((5,), path.t_end), None)) and torch.isfinite(beyond).all()
    assert all((t == torch.tensor(path.t_end)).all() for t in seen)


def wavy(x, t, labels):
    shift = 0 if labels is None else labels.reshape(-1, 1, 1, 1)
    return torch.sin(3 * x + t.reshape(-1, 1, 1, 1) + shift)


@pytest.mark.parametrize(
    "how, nfe, steps",
    [
        (Sweep(solver="euler", nfe=(4,)), 4, 4),
        (Sweep(solver="heun", grid="uniform", nfe=(8,)), 8, 4),
        (Sweep(solver="dopri5"), 0, 1),
    ],
    ids=["euler", "heun", "dopri5"],
)
def test_linear_samples_to_the_bit(how, nfe, steps):
    z, labels = pair(torch.float32)[1], torch.arange(5)
    solver = SOLVERS[how.solver]()
    plain = integrate(lambda x, t: wavy(x, t, labels), z, time_grid(how.grid, steps), solver)
    assert torch.equal(student_samples(wavy, z, labels, how, nfe)[0], plain)
    assert torch.equal(student_samples(wavy, z, labels, how, nfe, LINEAR)[0], plain)


def test_the_last_step_ends_at_t_end():
    path, z = VariancePreserving(), pair()[1]
    x, _ = student_samples(lambda x, t, labels: torch.full_like(x, 1e3), z, None, Sweep(nfe=(1,)), 1, path)
    at_1 = preconditioning(path, torch.ones((), dtype=z.dtype))
    v = at_1.skip * path.start(z) + at_1.velocity_scale * 1e3
    torch.testing.assert_close(x, path.start(z) - (1 - path.t_end) * v, rtol=1e-9, atol=0)
    assert not torch.allclose(x, path.start(z) - v, rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_calls_are_the_networks(path):
    z, labels, made = pair(torch.float32)[1], torch.arange(5), []

    def network(x, t, labels):
        made.append(labels)
        return wavy(x, t, labels)

    x, calls = student_samples(network, z, labels, Sweep(solver="euler", nfe=(6,), guidance=2.0), 6, path)
    assert calls == len(made) == 6 and torch.isfinite(x).all()
    assert sum(labels is None for labels in made) == 3
