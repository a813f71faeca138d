"""The entropic coupling: its plan, its two limits, and what drawing from the plan does to the noise."""

import math

import numpy as np
import ot
import pytest
import torch
from ot.bregman import sinkhorn_log

from pipeline.couplings import Entropic, Independent, MinibatchOT, _entropic, assignment
from pipeline.couplings._entropic import TOLERANCE, plan
from pipeline.couplings._minibatch_ot import gain_deviation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(n=48, shape=(3, 8, 8), seed=0):
    return (
        torch.rand(n, *shape, generator=generator(seed)) * 2 - 1,
        torch.randn(n, *shape, generator=generator(seed + 1)),
    )


@pytest.mark.parametrize("regularisation", [10, 0.3, 0.1, 0.03, 0.01])
def test_marginals(regularisation):
    found = plan(*pairs(), regularisation)
    assert found.dtype == torch.float64 and (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.full((48,), 1 / 48, dtype=torch.float64), rtol=1e-9, atol=0)
    assert (48 * found.sum(0) - 1).square().mean().sqrt() <= TOLERANCE


@pytest.mark.parametrize("regularisation", [1.0, 0.3])
def test_the_plan_is_pots(regularisation):
    """The published implementation, on arrays of NumPy."""
    x, z = pairs()
    cost = -2 * (x.flatten(1) @ z.flatten(1).T).double()
    e, weights = regularisation * gain_deviation(cost), np.full(48, 1 / 48)
    expected = sinkhorn_log(weights, weights, cost.numpy(), e, numItermax=10_000, stopThr=1e-12)
    found = plan(x, z, regularisation).numpy()
    assert np.linalg.norm(found - expected) < TOLERANCE * np.linalg.norm(expected)


def test_no_gpu_is_touched_for_images_on_the_cpu(monkeypatch):
    """A batch is coupled in a thread, next to the step of a GPU that need not be the first."""

    def refused(*words):
        raise AssertionError("POT's backend of torch takes memory of the first GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", refused)
    monkeypatch.setattr(ot.backend.TorchBackend, "__init__", refused)
    monkeypatch.setattr(ot.backend, "_BACKENDS", {})
    x, _ = pairs(12)
    assert Entropic(0.3).noise_for(x, None, torch.arange(12), generator()).shape == x.shape


def test_two_points_by_hand():
    """Of [[p, q], [q, p]] / 2 the optimal one has log p/q = -(c11 + c22 - c12 - c21) / 2e."""
    x, z = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.3], [0.9]])
    gain = 2 * (1 - 0) * (0.9 - 0.3)  # c12 + c21 - c11 - c22
    e = gain / 4  # the centred cost is +-gain / 4, which is its deviation
    p = 1 / (1 + math.exp(-gain / (2 * e)))
    expected = torch.tensor([[p, 1 - p], [1 - p, p]], dtype=torch.float64) / 2
    torch.testing.assert_close(plan(x, z, 1.0), expected, rtol=0, atol=2e-4)


def test_without_regularisation_it_is_the_exact_assignment():
    x, z = pairs(24)
    found = plan(x, z, 1e-4) * 24
    assert torch.equal(found.argmax(1), assignment(x, z)) and found.max(1).values.min() > 0.99
    sharp, exact = (c.noise_for(x, None, torch.arange(24), generator(5)) for c in (Entropic(1e-4), MinibatchOT()))
    assert torch.equal(sharp, exact)


def test_with_much_regularisation_it_is_independent():
    torch.testing.assert_close(plan(*pairs(), 1e3) * 48**2, torch.ones(48, 48, dtype=torch.float64), rtol=0.01, atol=0)


def test_cost_grows_with_regularisation_between_the_two():
    x, z = pairs()
    cost = torch.cdist(x.flatten(1), z.flatten(1)).square().double()
    exact = cost[torch.arange(48), assignment(x, z)].mean()
    costs = [float((plan(x, z, regularisation) * cost).sum()) for regularisation in (0.01, 0.1, 0.3, 1, 10)]
    assert costs == sorted(costs) and exact <= costs[0] * (1 + 1e-4) and costs[0] < costs[-1] < cost.mean() * (1 + 1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, z: (10 * x, z),
        lambda x, z: (x + 0.5, z),
        lambda x, z: (torch.cat([x, 0 * x], 1), torch.cat([z, torch.randn(z.shape, generator=generator(9))], 1)),
    ],
)
def test_regularisation_knows_no_contrast_brightness_or_padding(change):
    torch.testing.assert_close(plan(*change(*pairs()), 0.2), plan(*pairs(), 0.2), rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("dimension", [48, 768, 3072])
def test_regularisation_means_the_same_in_any_dimension(dimension):
    found = plan(*pairs(64, (dimension,)), 0.3) * 64  # each row a distribution
    shared = (-(found * found.log()).sum(1)).exp().mean()  # as many noises as this many equally likely ones
    assert 6 < shared < 8


def test_noise_is_drawn_from_the_rows_of_the_plan(monkeypatch):
    x, z = pairs(6, (4,))
    monkeypatch.setattr(_entropic, "gaussian_like", lambda x, generator: z)
    rows, source, expected = torch.arange(6), generator(), 6 * plan(x, z, 0.5)
    counts = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(400):
        drawn = torch.cdist(Entropic(0.5).noise_for(x, None, rows, source), z).argmin(1)
        counts[rows, drawn] += 1 / 400
    torch.testing.assert_close(counts, expected, atol=0.1, rtol=0)  # 4 standard errors
    assert (counts.max(1).values < 0.95).any()


def test_noise_stays_gaussian_over_the_draws():
    x = torch.tensor([-1.0, 1.0, 1.0, 1.0]).repeat(16)[:, None, None, None]  # far from Gaussian
    z = torch.cat([Entropic(0.3).noise_for(x, None, torch.arange(64), generator(seed)) for seed in range(150)])
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
    assert abs(z.abs().lt(0.6745).float().mean() - 0.5) < 0.03  # the quartiles of N(0, 1)


def test_a_noise_is_used_once_on_average_but_some_not_at_all():
    x, _ = pairs(500, (12,))
    z0 = Independent().noise_for(x, None, torch.arange(500), generator())
    z = Entropic(3.0).noise_for(x, None, torch.arange(500), generator())
    used = torch.cdist(z, z0).argmin(1).bincount(minlength=500)
    assert used.sum() == 500 and abs((used == 0).float().mean() - math.exp(-1)) < 0.06


def test_within_class():
    x, _ = pairs()
    labels, rows = torch.arange(48) % 3, torch.arange(48)
    z0 = Independent().noise_for(x, None, rows, generator())
    z = Entropic(0.5).noise_for(x, labels, rows, generator())
    order = torch.cdist(z.flatten(1), z0.flatten(1)).argmin(1)
    assert torch.equal(z, z0[order]) and torch.equal(labels[order], labels) and not torch.equal(order, rows)


def test_images_all_alike_are_paired_at_random():
    x = torch.zeros(8, 1, 2, 2)
    assert torch.equal(
        plan(x, torch.randn(x.shape, generator=generator()), 0.01), torch.full((8, 8), 1 / 64, dtype=torch.float64)
    )
    assert Entropic(0.01).noise_for(x[:1], None, torch.arange(1), generator()).shape == (1, 1, 2, 2)


def test_says_so_if_it_did_not_converge(monkeypatch):
    monkeypatch.setattr(_entropic, "ITERATIONS", 10)
    with pytest.warns(RuntimeWarning, match=r"did not converge in 10 .* 0\.001"):
        plan(*pairs(64, (2,)), 1e-3)
