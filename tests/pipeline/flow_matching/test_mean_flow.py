"""Average velocities against their closed form between Gaussians, and the derivative through whole networks."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.dit import DiT, DiTConfig
from models.unet import UNet, UNetConfig
from pipeline.flow_matching.mean_flow import MeanFlow, average_velocity_target, guided_velocity, time_derivative
from storage.errors import InputError

SPREAD = 0.3  # of the data: x ~ N(0, SPREAD^2 I), z ~ N(0, I) independent of it


def deviation(t):
    """The standard deviation of x_t."""
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


def velocity(x, t):
    """E[z - x | x_t]: the marginal velocity."""
    t = t.view(-1, 1, 1, 1)
    return x * (t - (1 - t) * SPREAD**2) / deviation(t) ** 2


class Exact(nn.Module):
    """u(x, r, t) = (x_t - x_r) / (t - r) on the solution x_r = x_t deviation(r) / deviation(t)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x, t, labels=None, condition=None, r=None):
        r = t if r is None else r
        t4, r4 = t.view(-1, 1, 1, 1), r.view(-1, 1, 1, 1)
        span = (t4 - r4).clamp(min=1e-300)
        over = x * (1 - deviation(r4) / deviation(t4)) / span
        return self.scale * torch.where(t4 > r4, over, velocity(x, t))


def times(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, n, generator=generator, dtype=torch.float64).sort(0).values
    return pair[0], pair[1]


def images(n, seed=1):
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_exact_average_velocity_is_its_own_target():
    x_t, (r, t) = images(64), times(64)
    exact = Exact()
    target = average_velocity_target(exact, x_t, velocity(x_t, t), r, t)
    torch.testing.assert_close(target, exact(x_t, t, r=r).detach(), atol=1e-10, rtol=1e-10)
    improved = average_velocity_target(exact, x_t, velocity(x_t, t), r, t, improved=True)
    torch.testing.assert_close(improved, target, atol=1e-10, rtol=1e-10)


class Small(nn.Module):
    """u of numbers (B, 1, 1, 1) by a perceptron of x, t and t - r."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, x, t, labels=None, condition=None, r=None):
        r = t if r is None else r
        return self.layers(torch.stack([x.flatten(), t, t - r], 1)).view_as(x)


def test_a_fitted_network_jumps_where_the_flow_ends_and_its_intervals_add_up():
    """From z ~ N(0, 1) to x ~ N(0, 0.64), 0.8 z: in one jump and in two. One step of the velocity ends at 0."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = Small()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        x, z = 0.8 * torch.randn(512, 1, 1, 1, generator=generator), torch.randn(512, 1, 1, 1, generator=generator)
        r, t = torch.rand(2, 512, generator=generator).sort(0).values
        r = torch.where(torch.arange(512) < 256, t, r)
        batch = SimpleNamespace(x=x, z=z, t=t, r=r, labels=None, condition=None)
        optimizer.zero_grad()
        MeanFlow(power=0.0)(network, batch)[0].backward()
        optimizer.step()
        decay.step()
    z = torch.linspace(-1.5, 1.5, 31).view(-1, 1, 1, 1)
    one, half, zero = torch.ones(31), torch.full((31,), 0.5), torch.zeros(31)
    with torch.no_grad():
        once = z - network(z, one, r=zero)
        middle = z - 0.5 * network(z, one, r=half)
        twice = middle - 0.5 * network(middle, half, r=zero)
        step = z - network(z, one)
    for end in (once, twice):
        assert (end - 0.8 * z).norm() < 0.15 * (0.8 * z).norm()
    assert step.norm() < 0.3 * (0.8 * z).norm()


def test_where_r_is_t_the_target_is_the_velocity_of_the_pair():
    x_t, v, t = images(8), images(8, 3), times(8)[1]
    assert torch.equal(average_velocity_target(Exact(), x_t, v, t, t), v)


class OfClasses(nn.Module):
    """Any network with classes, another function in training than in use, as one with dropout is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4, dtype=torch.float64))  # the last is of no class

    def forward(self, x, t, labels=None, condition=None, r=None):
        scale = self.scale[labels].view(-1, 1, 1, 1) * (2 if self.training else 1)
        return scale * x * (1 + (t + 0.5 * (t - (t if r is None else r))).view(-1, 1, 1, 1))


def test_guidance_moves_the_velocity_away_from_that_without_a_class():
    network, x_t, v, t = OfClasses(), images(6), images(6, 3), times(6)[1]
    labels = torch.tensor([0, 1, -1, 2, -1, 0])
    guided = guided_velocity(network, x_t, v, t, labels, None, 2.5)
    free = network.eval()(x_t, t, torch.full((6,), -1)).detach()
    expected = torch.where((labels < 0).view(-1, 1, 1, 1), v, 2.5 * v - 1.5 * free)
    torch.testing.assert_close(guided, expected)
    with pytest.raises(InputError):
        guided_velocity(network, x_t, v, t, None, None, 2.5)


def test_guidance_of_a_batch_without_any_class_is_the_pairs_velocity():
    """As a small part of a batch may be. A transformer cannot cut no images at all into patches."""
    x_t, v, t, none = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([-1, -1])
    assert torch.equal(guided_velocity(dit(), x_t, v, t, none, None, 2.5), v)


@pytest.mark.parametrize("improved", [False, True])
def test_the_derivative_is_without_tf32_and_leaves_matrix_products_alone(improved):
    """Settings of the whole process, so a CPU shows them. Those of products are also set where a teacher encodes the
    next batch, which is done by another thread."""
    products, convolutions, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []

    class Precisions(Exact):
        def forward(self, *words, **named):
            seen.append((products.fp32_precision, convolutions.fp32_precision))
            return super().forward(*words, **named)

    x, (r, t) = images(4), times(4)
    before = products.fp32_precision, convolutions.fp32_precision
    try:
        products.fp32_precision, convolutions.fp32_precision = "tf32", "tf32"
        time_derivative(Precisions(), x, x, r, t, improved=improved)
        assert set(seen) == {("tf32", "ieee")} and len(seen) == 1 + improved
        assert (products.fp32_precision, convolutions.fp32_precision) == ("tf32", "tf32")
    finally:
        products.fp32_precision, convolutions.fp32_precision = before


class Waits(TorchDispatchMode):
    """Operations in which values of a tensor are read or decide about a shape: a GPU is waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        chosen = args[1] if func is torch.ops.aten.index.Tensor else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in chosen)
        if by_mask or func in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_gpu_is_not_waited_for_between_the_forward_and_the_backward_pass():
    waits = Waits()

    class Last(Exact):
        def forward(self, *words, **named):
            waits.found.clear()
            return super().forward(*words, **named)

    x, z, (r, t) = images(6), images(6, 7), times(6)
    batch = SimpleNamespace(x=x, z=z, t=t, r=torch.where(torch.arange(6) < 2, t, r), labels=None, condition=None)
    with waits:
        MeanFlow()(Last(), batch)
    assert waits.found == []


def test_guided_averages_are_those_of_pairs_with_the_guided_velocity():
    """The loss under guidance is the plain one of x' and z' on the same x_t with z' - x' the guided velocity."""
    network, (r, t), labels = OfClasses(), times(8), torch.arange(8) % 4 - 1
    x, z = images(8), images(8, 3)
    x_t, t4 = torch.lerp(x, z, t.view(-1, 1, 1, 1)), t.view(-1, 1, 1, 1)
    v = guided_velocity(network, x_t, z - x, t, labels, None, 1.7)
    batch, other = (
        SimpleNamespace(x=x, z=z, t=t, r=r, labels=labels, condition=None),
        SimpleNamespace(x=x_t - t4 * v, z=x_t + (1 - t4) * v, t=t, r=r, labels=labels, condition=None),
    )
    loss, _ = MeanFlow(power=0.0, guidance=1.7)(network, batch)
    assert loss.item() == pytest.approx(MeanFlow(power=0.0)(network, other)[0].item(), rel=1e-9)
    assert loss.item() != pytest.approx(MeanFlow(power=0.0)(network, batch)[0].item(), rel=1e-3)
    assert network.training


@pytest.mark.parametrize("improved", [False, True])
def test_the_expected_gradient_vanishes_at_the_truth_and_nowhere_near(improved):
    """Over many pairs the mean of (u - target) u is zero: the objective has its minimum at the average velocity."""
    n = 200_000
    x, z = SPREAD * images(n, 4), images(n, 5)
    r, t = times(n, 6)
    batch = SimpleNamespace(x=x, z=z, t=t, r=r, labels=None, condition=None)
    gradients = {}
    for scale in (0.9, 1.0, 1.1):
        network = Exact()
        with torch.no_grad():
            network.scale.fill_(scale)
        loss, _ = MeanFlow(power=0.0, improved=improved)(network, batch)
        loss.backward()
        gradients[scale] = network.scale.grad.item()
    assert abs(gradients[1.0]) < 0.05 * min(-gradients[0.9], gradients[1.1])
    assert gradients[0.9] < 0 < gradients[1.1]


def test_the_weight_makes_errors_of_any_size_count_alike_and_raw_errors_are_split():
    x, z = images(6), images(6, 7)
    r, t = times(6)
    r = torch.where(torch.arange(6) < 2, t, r)
    batch = SimpleNamespace(x=x, z=z, t=t, r=r, labels=None, condition=None)
    network = Exact()
    loss, raw = MeanFlow(power=1.0, epsilon=1e-12)(network, batch)
    assert loss.item() == pytest.approx(1.0)
    plain, _ = MeanFlow(power=0.0)(network, batch)
    assert (raw["error_instant"][1].item(), raw["error_interval"][1].item()) == (2, 4)
    total = raw["error_instant"][0] + raw["error_interval"][0]
    assert total.item() * 4 / 6 == pytest.approx(plain.item(), rel=1e-6)


def unet(**changes):
    return UNet(
        UNetConfig(
            channels=1, size=8, base=16, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=16, dropout=0.3,
            classes=10, time_scale=16.0, interval=True, **changes,
        )
    )  # fmt: skip


def dit(**changes):
    return DiT(
        DiTConfig(
            channels=1,
            size=8,
            patch=2,
            width=32,
            depth=2,
            heads=2,
            classes=10,
            time_scale=16.0,
            interval=True,
            **changes,
        )
    )


@pytest.mark.parametrize("make", [unet, dit])
@pytest.mark.parametrize("condition_channels", [0, 1])
def test_the_derivative_is_that_of_finite_differences_through_the_whole_network(make, condition_channels):
    torch.manual_seed(0)
    network = make(condition_channels=condition_channels).double().to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)  # no branch is left shut
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    v, (r, t), labels = torch.randn_like(x), times(4), torch.tensor([0, 3, -1, 9])
    condition = torch.randn_like(x) if condition_channels else None
    network.train()
    derivative = time_derivative(network, x, v, r, t, labels, condition)
    assert network.training and not derivative.requires_grad
    network.eval()
    step = 1e-5
    with torch.no_grad():
        ahead = network(x + step * v, t + step, labels, condition, r)
        behind = network(x - step * v, t - step, labels, condition, r)
    difference = (ahead - behind) / (2 * step)
    assert (derivative - difference).norm() < 1e-6 * difference.norm()


@pytest.mark.parametrize("make", [unet, dit])
def test_an_untrained_span_changes_nothing_and_one_time_networks_refuse_it(make):
    torch.manual_seed(0)
    network = make().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            continue
        nn.init.normal_(parameter, std=0.1)
    nn.init.zeros_(network.embed_span[2].weight)
    nn.init.zeros_(network.embed_span[2].bias)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.4, 0.9])
    with torch.no_grad():
        assert torch.equal(network(x, t), network(x, t, r=t / 2))
    single = (UNet if make is unet else DiT)(type(network.config)(**{**vars(network.config), "interval": False}))
    with pytest.raises(ValueError, match="interval"):
        single(x, t, r=t / 2)
