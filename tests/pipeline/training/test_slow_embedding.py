"""The slow embedding answers as the fast one, and its derivative in t is that of the answer."""

import pytest
import torch
from torch import nn

from models.dit import DiT, DiTConfig
from models.unet import UNet, UNetConfig
from pipeline.flow_matching.mean_flow import time_derivative
from pipeline.training.slow_embedding import with_slow_embedding


def unet():
    config = UNetConfig(
        channels=1, size=4, base=16, multipliers=(1,), blocks=1, attention=(), head_channels=8, dropout=0.0, classes=3
    )
    return UNet(config)


def dit():
    return DiT(DiTConfig(channels=1, size=4, patch=2, width=16, depth=1, heads=2, classes=3))


def smooth(network):
    """A network with random weights whose embedding is a slow function of t, as that of a trained one is."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    first, width = network.embed_time[0], network.embed_time[0].in_features
    slow = torch.arange(width // 2) > width // 4  # 1000 t 10^(-4 i / (W / 2)) below 10 rad
    with torch.no_grad():
        first.weight.mul_(torch.cat([slow, slow]))
    return network.eval()


@pytest.mark.parametrize("make", [unet, dit])
def test_the_velocity_stays_and_its_derivative_in_t_is_no_oscillation(make):
    fast = smooth(make())
    slow = with_slow_embedding(fast, 16.0, 4)
    assert (slow.config.interval, slow.config.time_scale) == (True, 16.0)
    x, t = torch.randn(64, 1, 4, 4), torch.linspace(0.01, 0.99, 64)
    labels = torch.arange(64) % 3
    slow.eval()
    with torch.no_grad():
        before, after = fast(x, t, labels), slow(x, t, labels, r=t)
    assert (after - before).norm() < 0.05 * before.norm()
    step = 0.02  # a difference over so long a step is blind to a fast oscillation
    with torch.no_grad():
        rise = (fast(x, t + step, labels) - fast(x, t - step, labels)) / (2 * step)
    derivative = time_derivative(slow, x, torch.zeros_like(x), t, t, labels)
    assert (derivative - rise).norm() < 0.3 * rise.norm()


def test_a_network_of_intervals_is_left_alone_and_the_fit_is_repeatable():
    fast = smooth(unet())
    one, two = with_slow_embedding(fast, 16.0, 4), with_slow_embedding(fast, 16.0, 4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert with_slow_embedding(one, 8.0, 4) is one
