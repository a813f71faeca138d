"""Reflow where its truth is known: between Gaussians, whose reflowed map is exact, in two and in eight dimensions.

Of independent x ~ N(m, s^2) and z ~ N(0, 1) the flow is v(x_t, t) = (t - (1 - t) s^2) / r^2 (x_t - (1 - t) m) - m with
r^2 = (1 - t)^2 s^2 + t^2, and carries z to m + s z, whatever its path. The flow of these pairs goes there straight.
"""

import math

import pytest
import torch
from torch import nn

from pipeline.couplings import Banked
from pipeline.data.batches import FlowBatch
from pipeline.data.examples import Examples
from pipeline.flow_matching.intervals import states_between
from pipeline.flow_matching.objective import FlowMatching
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.solvers import RK4, Dopri5, Euler
from pipeline.flow_matching.times import Uniform, UShaped
from pipeline.metrics.straightness import straightness
from pipeline.stages.reflow import measured, worsened
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.mixture import Mixture
from pipeline.training.student import train
from tests.pipeline.flow_matching.solvers.test_order import sample
from tests.pipeline.jobs import job, training

MEAN, SPREAD = 0.7, 0.4
CPU = torch.device("cpu")
SHAPES = [(2, 1, 1), (2, 2, 2)]  # two dimensions, and eight


def first_flow(x, t, labels=None):
    """Of independent Gaussians."""
    t = t.view(-1, 1, 1, 1)
    r2 = (1 - t) ** 2 * SPREAD**2 + t**2
    return (t - (1 - t) * SPREAD**2) / r2 * (x - (1 - t) * MEAN) - MEAN


def reflowed(x, t, labels=None):
    """Of its pairs: x_t = (1 - t) (m + s z) + t z gives z, and z gives z - x."""
    t = t.view(-1, 1, 1, 1)
    z = (x - (1 - t) * MEAN) / ((1 - t) * SPREAD + t)
    return z - (MEAN + SPREAD * z)


def noises(shape, count=512, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def pairs(flow, shape, count=512):
    z = noises(shape, count)
    return z, states_between(flow, z, RK4(), 64, 1)[-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_of_the_first_flow_lie_where_the_truth_says(shape):
    z, x = pairs(first_flow, shape)
    torch.testing.assert_close(x, MEAN + SPREAD * z, rtol=0, atol=1e-4)
    adaptive = states_between(first_flow, z, Dopri5(1e-6, 1e-6), 1, 1)[-1]
    torch.testing.assert_close(adaptive, MEAN + SPREAD * z, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_straight_flow_has_no_loss_on_them_and_the_first_one_has(shape):
    z, x = pairs(first_flow, shape)
    for time in (Uniform(), UShaped()):
        t = time.sample(len(z), torch.Generator().manual_seed(1))
        couples = FlowBatch(x, z, t, None)
        assert FlowMatching()(reflowed, couples) < 1e-6
        assert FlowMatching()(first_flow, couples) > 0.01
    assert straightness(reflowed, z) < 1e-6 < 0.01 < straightness(first_flow, z)
    torch.testing.assert_close(sample(reflowed, z, Euler(), 1, "uniform"), x, rtol=0, atol=1e-4)


def test_a_second_round_of_a_straight_flow_changes_nothing():
    z, x = pairs(reflowed, SHAPES[0])
    torch.testing.assert_close(x, MEAN + SPREAD * z, rtol=0, atol=1e-5)
    assert FlowMatching()(reflowed, FlowBatch(x, z, torch.rand(len(z)), None)) < 1e-9


class Affine(nn.Module):
    """v = a(t) x + b(t): what both flows are. It begins as the first one, which it was fitted to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x, t, labels=None):
        a, b = self.layers(t[:, None] - 0.5).view(-1, 2, 1, 1, 1).unbind(1)
        return a * x + b


@pytest.fixture(scope="module")
def first():
    """A network fitted to the first flow itself."""
    network = Affine()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(600):
        draws = torch.Generator().manual_seed(step)
        t, x = torch.rand(256, generator=draws), torch.randn(256, 1, 1, 1, generator=draws) * 1.5
        optimizer.zero_grad()
        (network(x, t) - first_flow(x, t)).square().mean().backward()
        optimizer.step()
    return network


@pytest.mark.parametrize(("shape", "share"), [(SHAPES[0], 0.0), (SHAPES[1], 0.0), (SHAPES[1], 0.5)])
def test_paths_grow_straight_in_a_round_and_end_where_they_did(tmp_path, first, shape, share):
    """With its own pairs, or with as many that begin with data, whose noise the ODE followed backwards gives."""
    network = Affine()
    network.load_state_dict(first.state_dict())
    z = noises(shape, 2048)
    with torch.no_grad():
        x = states_between(network, z, RK4(), 64, 1)[-1]
        before = measured(network, z[:512], None, CPU)
        data = MEAN + SPREAD * noises(shape, 1024, 5)
        back = data
        for t in torch.arange(64) / 64:
            back = back + network(back, t.expand(len(back))) / 64
    mixture = Mixture(
        (Examples(x.numpy(), None), Banked(z[None])), (Examples(data.numpy(), None), Banked(back[None])), share
    )
    couples = FlowBatches(mixture, mixture, Uniform(), LINEAR, 0.0, 7, 256)
    fitted = train(job(tmp_path), network, couples, training(images=102_400, batch=256, lr=3e-3, ema=3000), CPU)
    after = measured(fitted.network, z[:512], None, CPU)
    assert after < before / 20
    with torch.no_grad():
        one = sample(fitted.network, z, Euler(), 1, "uniform")
    assert (one - (MEAN + SPREAD * z)).square().mean() < 0.01 * SPREAD**2


def test_a_round_that_makes_paths_worse_says_so():
    assert worsened("reflow-2", 0.2, 0.1) == worsened("reflow-2", 0.1, 0.1) == ()
    (warning,) = worsened("reflow-2", 0.01234, 0.0456)
    assert "reflow-2" in warning and "0.01234" in warning and "0.0456" in warning


def test_the_flow_of_the_docstring_is_that_of_independent_gaussians():
    """v is the mean of z - x given x_t: by least squares on draws."""
    z, x = noises((1, 1, 1), 200_000, 2), MEAN + SPREAD * noises((1, 1, 1), 200_000, 3)
    for t in (0.1, 0.5, 0.9):
        x_t = ((1 - t) * x + t * z).flatten().double()
        slope, height = (
            torch.linalg.lstsq(torch.stack([x_t, torch.ones_like(x_t)], 1), (z - x).flatten().double()[:, None])
            .solution.flatten()
            .tolist()
        )
        at = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
        low, high = first_flow(at, torch.full((2,), t)).flatten().tolist()
        assert math.isclose(slope, high - low, abs_tol=0.02) and math.isclose(height, low, abs_tol=0.02)
