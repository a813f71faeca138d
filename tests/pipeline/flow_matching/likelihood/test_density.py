"""Log-densities against closed forms."""

import math

import pytest
import torch

from models.unet import UNet, UNetConfig
from pipeline.flow_matching.likelihood import EXACT_DIMENSIONS, log_density
from pipeline.flow_matching.solvers import CountedField, Guided
from storage.errors import FlowctlError, InputError
from tests.pipeline.flow_matching.likelihood.fields import SHEAR, gaussians, linear, log_normal, normal


def source(seed=0):
    return torch.Generator().manual_seed(seed)


# --- exact divergence


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_a_linear_field(tolerance):
    x = normal(16, 3)
    found = log_density(linear, x, rtol=tolerance, atol=tolerance)
    z = x @ torch.linalg.matrix_exp(SHEAR).T
    torch.testing.assert_close(found.noise, z, atol=20 * tolerance, rtol=0)
    torch.testing.assert_close(found.log_density, log_normal(z) + SHEAR.trace(), atol=200 * tolerance, rtol=0)
    assert found.probes == 0 and not found.probe_error.any()


def test_a_constant_field_moves_the_normal():
    shift = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = log_density(lambda x, t: shift.expand_as(x), normal(5, 2))
    torch.testing.assert_close(found.log_density, log_normal(normal(5, 2), mean=-shift))


def test_no_field_leaves_the_normal():
    x = normal(5, 1, 4, 4)
    torch.testing.assert_close(log_density(lambda x, t: 0 * x, x).log_density, log_normal(x))


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
def test_the_flow_of_gaussians(shape):
    mean = torch.linspace(-2, 1, 6, dtype=torch.float64).view(shape)
    std = torch.tensor([0.05, 0.3, 0.7, 1.0, 1.5, 3.0], dtype=torch.float64).view(shape)
    x = mean + std * normal(32, *shape)
    found = log_density(gaussians(mean, std), x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.log_density, log_normal(x, mean, std), atol=2e-4, rtol=0)


def test_densities_of_a_nonlinear_field_add_up_to_one():
    def velocity(x, t):
        return torch.sin(3 * x + t[:, None]) + x / 10

    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = log_density(velocity, x[:, None], rtol=1e-7, atol=1e-7).log_density.exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-5)
    assert float(density.max()) > 2 * float(log_normal(torch.zeros(1, 1)).exp())  # the field does something


def test_densities_in_the_plane_add_up_to_one():
    def velocity(x, t):
        a, b = x.unbind(1)
        return torch.stack([torch.tanh(2 * b) * t + torch.sin(a), torch.sin(2 * a)], 1)

    side = torch.linspace(-6, 6, 121, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    density = log_density(velocity, x).log_density.exp()
    assert float(density.sum() * 0.1**2) == pytest.approx(1, abs=1e-3)


# --- probes


def test_hutchinson_is_unbiased_and_knows_its_error():
    x, probes = normal(8, 3), 1000
    found = log_density(linear, x, divergence="hutchinson", probes=probes, generator=source(), rtol=1e-4, atol=1e-4)
    truth = log_normal(x @ torch.linalg.matrix_exp(SHEAR).T) + SHEAR.trace()
    assert ((found.log_density - truth).abs() < 4 * found.probe_error).all()
    # For entries of -1 and 1 the variance is 2 sum_{i != j} S_ij^2, S the symmetric part.
    symmetric = (SHEAR + SHEAR.T) / 2
    variance = 2 * (symmetric.square().sum() - symmetric.diagonal().square().sum())
    expected = (variance / probes).sqrt().expand(8)
    torch.testing.assert_close(found.probe_error, expected, rtol=0.1, atol=0)


def test_one_probe_is_exact_for_a_diagonal_jacobian():
    def velocity(x, t):
        return torch.tanh(2 * x) + t[:, None] * x

    x = normal(8, 5)
    found = log_density(velocity, x, divergence="hutchinson", probes=3, generator=source(), rtol=1e-8, atol=1e-8)
    truth = log_density(velocity, x, divergence="exact", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.log_density, truth.log_density, atol=1e-9, rtol=0)
    assert found.probe_error.max() < 1e-9
    one = log_density(velocity, x, divergence="hutchinson", probes=1, generator=source())
    assert one.probe_error.isnan().all()


def test_probes_come_from_the_generator_alone():
    x = normal(4, 3)
    a, b, c = (log_density(linear, x, divergence="hutchinson", generator=source(s)).log_density for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)


@pytest.mark.parametrize("dims, probes", [(EXACT_DIMENSIONS, 0), (EXACT_DIMENSIONS + 1, 2)])
def test_auto_counts_dimensions(dims, probes):
    found = log_density(lambda x, t: -x, normal(2, dims), probes=2, generator=source())
    assert found.probes == probes
    torch.testing.assert_close(found.log_density, log_normal(normal(2, dims) / math.e) - dims, atol=1e-3, rtol=0)


# --- networks


def unet(classes=0, steps=0, size=8):
    """A small network that was fitted to v = x for so many steps; untrained ones return zeros."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(1, size, 8, (1, 1), 1, (4,), 8, 0.0, classes)).eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        x = torch.randn(16, 1, size, size)
        (network(x, torch.rand(16)) - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


def test_exact_and_hutchinson_agree_on_a_unet():
    """16 dimensions, so that the divergence of v = x is 16."""
    network, x, how = unet(steps=40, size=4), normal(1, 1, 4, 4, dtype=torch.float32), {"rtol": 0.1, "atol": 0.1}
    truth = log_density(network, x, **how)
    found = log_density(network, x, divergence="hutchinson", probes=16, generator=source(), **how)
    divergence = truth.log_density - log_normal(truth.noise.double())
    assert truth.probes == 0 and ((divergence > 10) & (divergence < 16)).all()
    assert ((found.log_density - truth.log_density).abs() < 4 * found.probe_error).all()
    assert found.probe_error.min() > 0 and found.probe_error.max() < 1
    assert all(p.grad is None for p in network.parameters())


def test_calls_of_a_guided_network_are_counted():
    network, x, labels = CountedField(unet(classes=3)), normal(2, 1, 8, 8, dtype=torch.float32), torch.tensor([0, 2])
    velocity = Guided(network, labels, 1.5)
    found = log_density(velocity, x, divergence="hutchinson", probes=1, generator=source(), rtol=1e-2, atol=1e-2)
    assert found.calls == network.calls >= 14 and found.calls % 2 == 0


def test_single_precision_and_any_surroundings():
    network, x = unet(steps=5, size=4), normal(2, 1, 4, 4, dtype=torch.float32)
    before, how = x.clone(), {"divergence": "hutchinson", "probes": 2, "rtol": 1e-3, "atol": 1e-3}
    double = log_density(unet(steps=5, size=4).double(), x.double(), generator=source(), **how)
    expected = log_density(network, x, generator=source(), **how)
    assert expected.noise.dtype == torch.float32 and expected.log_density.dtype == torch.float64
    torch.testing.assert_close(expected.log_density, double.log_density, atol=0.05, rtol=0)
    with torch.inference_mode():
        found = log_density(network, normal(2, 1, 4, 4, dtype=torch.float32), generator=source(), **how)
    assert torch.equal(found.log_density, expected.log_density) and torch.equal(x, before)
    assert not found.log_density.requires_grad


# --- refusals


@pytest.mark.parametrize(
    "x, settings",
    [
        (torch.zeros(2, 3), {"divergence": "slq"}),
        (torch.zeros(2, 3), {"divergence": "hutchinson"}),
        (torch.zeros(2, 3), {"divergence": "hutchinson", "probes": 0, "generator": source()}),
        (torch.zeros(2, 65), {}),
        (torch.zeros(3), {}),
        (torch.zeros(0, 3), {}),
        (torch.zeros(2, 3, dtype=torch.uint8), {}),
    ],
)
def test_bad_arguments(x, settings):
    field = CountedField(lambda x, t: -x)
    with pytest.raises(InputError):
        log_density(field, x, **settings)
    assert field.calls == 0


@pytest.mark.parametrize("cut", [torch.no_grad()(lambda x, t: -x), lambda x, t: -x.detach()])
def test_a_velocity_without_gradient_does_not_pass_for_a_constant_one(cut):
    with pytest.raises(InputError):
        log_density(cut, normal(2, 3))


def test_a_weight_does_not_hide_that_the_gradient_is_cut():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError):
        log_density(lambda x, t: weight * x.detach(), normal(2, 3))
    shifted = log_density(lambda x, t: weight * torch.ones_like(x), normal(2, 3))  # constant indeed
    torch.testing.assert_close(shifted.log_density, log_normal(normal(2, 3) + 1))


def test_a_velocity_of_another_shape_is_refused():
    with pytest.raises(InputError):
        log_density(lambda x, t: x[:, :1], normal(2, 3))


def test_it_says_when_the_tolerance_cannot_be_met():
    with pytest.raises(FlowctlError):
        log_density(lambda x, t: x * torch.nan, normal(2, 3))
