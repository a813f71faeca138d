"""Minibatch optimal transport is exact, whatever the cost looks like."""

from itertools import permutations

import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from pipeline.couplings import Independent, MinibatchOT, _minibatch_ot, assignment
from pipeline.couplings._minibatch_ot import gain_deviation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, shape=(3, 32, 32), seed=0):
    """Smooth images of differing brightness, as real ones are."""
    coarse = torch.randn(n, shape[0], 4, 4, generator=generator(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    return (0.5 * smooth + 0.3 * torch.randn(n, 1, 1, 1, generator=generator(seed + 1))).clamp(-1, 1)


def noise(n, shape=(3, 32, 32), seed=7):
    return torch.randn(n, *shape, generator=generator(seed))


def cost(x, z):
    return (x - z).double().square().sum().item()


@pytest.mark.parametrize("with_labels", [False, True])
def test_permutes_the_independent_noise_at_lower_cost(with_labels):
    x, labels, rows = images(40, (1, 8, 8)), torch.arange(40) % 4, torch.arange(40)
    z0 = Independent().noise_for(x, None, rows, generator())
    z = MinibatchOT().noise_for(x, labels if with_labels else None, rows, generator())
    order = torch.cdist(z.flatten(1), z0.flatten(1)).argmin(1)
    assert order.sort().values.tolist() == list(range(40)) and torch.equal(z, z0[order])
    assert cost(x, z) < cost(x, z0)
    if with_labels:
        assert torch.equal(labels[order], labels)


def test_optimal_by_brute_force():
    for seed in range(5):
        x, z = torch.rand(6, 2, generator=generator(seed)), torch.randn(6, 2, generator=generator(seed + 50))
        best = min(cost(x, z[list(p)]) for p in permutations(range(6)))
        assert cost(x, z[assignment(x, z)]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("n", [32, 128, 512])
def test_costs_what_a_network_simplex_finds(n):
    x, z = images(n), noise(n)
    full = cdist(x.flatten(1).double(), z.flatten(1).double(), "sqeuclidean")
    plan = ot.emd2([], [], full)  # POT's, with weights 1/n
    assert cost(x, z[assignment(x, z)]) / n == pytest.approx(plan, rel=1e-6)
    assert cost(x, z) / n > 1.02 * plan


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 1e4 * x,
        lambda x: 1e-4 * x,
        lambda x: x + 1000,
        lambda x: x * torch.logspace(-3, 3, len(x)).view(-1, 1, 1, 1),
        lambda x: x[torch.arange(len(x)) // 8],  # copies
    ],
)
def test_exact_for_costs_of_any_scale(change):
    x, z = change(images(128, (1, 8, 8)).double()), noise(128, (1, 8, 8)).double()
    full = cdist(x.flatten(1), z.flatten(1), "sqeuclidean")
    order = assignment(x, z)
    assert order.sort().values.tolist() == list(range(128))
    # What a pairing gains is a small part of the whole, so it is the gain that is compared.
    gained, best = full.trace() - full[range(128), order].sum(), full.trace() - full[linear_sum_assignment(full)].sum()
    assert gained == pytest.approx(best, rel=1e-5) and best > 0


def test_preparing_the_cost_changes_nothing(monkeypatch):
    x, z = images(200, (1, 8, 8)), noise(200, (1, 8, 8))
    prepared = assignment(x, z)
    monkeypatch.setattr(_minibatch_ot, "_PREPARED", 10**9)
    assert torch.equal(assignment(x, z), prepared)


def test_images_all_alike():
    x, z = torch.full((100, 1, 4, 4), 0.25), noise(100, (1, 4, 4))
    assert assignment(x, z).sort().values.tolist() == list(range(100))


def test_within_class_optimal_within_each():
    x, z, labels = images(300, (1, 8, 8)), noise(300, (1, 8, 8)), torch.arange(300) % 3
    p = assignment(x, z, labels)
    for label in range(3):
        own = labels == label
        assert torch.equal(z[p][own], z[own][assignment(x[own], z[own])])
    assert cost(x, z[assignment(x, z)]) < cost(x, z[p]) < cost(x, z)


def test_gain_deviation_sees_only_what_a_pairing_can_gain():
    x, z = torch.rand(500, 30, generator=generator()) - 0.5, torch.randn(500, 30, generator=generator(1))
    full = torch.cdist(x, z).square().double()
    shifted = full + torch.arange(500.0)[:, None] - 7 * torch.arange(500.0)
    assert gain_deviation(shifted) == pytest.approx(gain_deviation(full), rel=1e-6)
    assert gain_deviation(full) == pytest.approx(2 * (30 / 12) ** 0.5, rel=0.02)  # U(0, 1) has variance 1/12
