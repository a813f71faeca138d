"""Couplings across classes are those of all images together; within classes, of each class alone. By brute force."""

from itertools import permutations

import pytest
import torch

from pipeline.couplings import Entropic, Loom, MinibatchOT, SeededNoises, Semidiscrete, fit_potentials

COUNT = 6
X = torch.randn(COUNT, 1, 2, 2, generator=torch.Generator().manual_seed(1))
LABELS, ROWS = torch.tensor([0, 1, 0, 1, 1, 0]), torch.arange(COUNT)


def least_cost(x, z, labels=None):
    """The least sum of |z[p[i]] - x[i]|^2 over all permutations, or over those that stay within classes."""
    cost = torch.cdist(x.flatten(1).double(), z.flatten(1).double()).square()
    allowed = [
        p for p in permutations(range(len(x))) if labels is None or all(labels[i] == labels[j] for i, j in enumerate(p))
    ]
    return min(float(cost[range(len(x)), p].sum()) for p in allowed)


COUPLINGS = {
    "ot": lambda within: MinibatchOT(within_classes=within),
    "entropic": lambda within: Entropic(1e-3, within),
    "loom": lambda within: Loom(SeededNoises(3, COUNT, (1, 2, 2)), within_classes=within),
}


@pytest.mark.parametrize("kind", COUPLINGS)
def test_the_batch_is_assigned_at_least_cost(kind):
    drawn = {within: COUPLINGS[kind](within).noise_for(X, LABELS, ROWS, torch.Generator().manual_seed(5))
             for within in (True, False)}  # fmt: skip
    costs = {within: float((z - X).double().square().sum()) for within, z in drawn.items()}
    within, across = (least_cost(X, drawn[True], labels) for labels in (LABELS, None))
    assert across < 0.9 * within  # on these images classes are in the way
    assert costs[True] == pytest.approx(within, rel=1e-5)
    assert costs[False] == pytest.approx(across, rel=1e-5)
    assert sorted(drawn[True].flatten().tolist()) == sorted(drawn[False].flatten().tolist())  # the same noises


def test_potentials_without_classes_give_each_noise_the_nearest_of_all_images():
    potentials = fit_potentials(X, None, seed=0, batch=32, passes=2000, tolerance=0.02)
    rows, z = Semidiscrete(X, None, potentials).draw(600, torch.Generator().manual_seed(2))
    cost = torch.cdist(z.flatten(1), X.flatten(1)).double().square() - potentials.values
    assert torch.equal(rows, cost.argmin(1))
    shares = rows.bincount(minlength=COUNT) / 600
    assert (shares - 1 / COUNT).abs().max() < 0.08
