"""Couplings: noise is handed out whole, at least cost, the same for the same generator."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from pipeline.couplings import Banked, Independent, MinibatchOT, assignment
from storage.errors import InputError

BANK = torch.arange(3 * 40, dtype=torch.float32).reshape(3, 40, 1, 1, 1).expand(3, 40, 1, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=40, shape=(1, 4, 4), seed=9):
    x = torch.rand(n, *shape, generator=generator(seed)) * 2 - 1
    return x, torch.randint(4, (n,), generator=generator(seed)), torch.arange(n)


def cost(x, z):
    return (x - z).square().sum().item()


@pytest.mark.parametrize("coupling", [Independent(), MinibatchOT(), Banked(BANK)])
def test_shape_type_and_determinism(coupling):
    x, labels, rows = batch()
    before = x.clone()
    z = coupling.pair(x, labels, rows, generator())
    assert z.shape == x.shape and z.dtype == torch.float32 and torch.equal(x, before)
    assert torch.equal(z, coupling.pair(x, labels, rows, generator()))
    assert not torch.equal(z, coupling.pair(x, labels, rows, generator(1)))


def test_independent_is_standard_normal():
    x = torch.zeros(2000, 1, 4, 4)
    z = Independent().pair(x, None, torch.arange(2000), generator())
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


@pytest.mark.parametrize("with_labels", [False, True])
def test_ot_permutes_the_independent_noise_at_lower_cost(with_labels):
    x, labels, rows = batch()
    z0 = Independent().pair(x, None, rows, generator())
    z = MinibatchOT().pair(x, labels if with_labels else None, rows, generator())
    order = torch.cdist(z.flatten(1), z0.flatten(1)).argmin(1)
    assert order.sort().values.tolist() == list(range(40)) and torch.equal(z, z0[order])
    assert cost(x, z) < cost(x, z0)
    if with_labels:
        assert torch.equal(labels[order], labels)


def test_assignment_is_optimal_by_brute_force():
    for seed in range(5):
        x, _, _ = batch(6, (2,), seed)
        z = torch.randn(6, 2, generator=generator(seed))
        best = min(cost(x, z[list(p)]) for p in permutations(range(6)))
        assert cost(x, z[assignment(x, z)]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("n", [32, 128])
def test_assignment_is_optimal_on_the_full_cost(n):
    x, z = torch.randn(2, n, 3, 16, 16, generator=generator())
    full = cdist(x.flatten(1), z.flatten(1), "sqeuclidean")
    assert cost(x, z[assignment(x, z)]) == pytest.approx(full[linear_sum_assignment(full)].sum(), rel=1e-6)


def test_assignment_within_class_is_optimal_within_each():
    x, labels, _ = batch()
    z = torch.randn(x.shape, generator=generator())
    p = assignment(x, z, labels)
    for label in labels.unique():
        own = labels == label
        alone = z[own][assignment(x[own], z[own])]
        assert torch.equal(z[p][own], alone)


def test_banked_draws_vary_and_rows_do_not():
    x, _, _ = batch()
    rows = torch.randint(40, (40,), generator=generator())
    z = Banked(BANK).pair(x, None, rows, generator())[:, 0, 0, 0].long()
    assert torch.equal(z % 40, rows) and set((z // 40).tolist()) == {0, 1, 2}


def test_banked_in_half_precision_and_as_an_array():
    x, _, rows = batch()
    z = Banked(BANK).pair(x, None, rows, generator())
    for bank in (BANK.half(), BANK.numpy(), BANK.half().numpy()):
        assert torch.equal(Banked(bank).pair(x, None, rows, generator()), z)


@pytest.mark.parametrize("bank", [BANK[0], BANK[:0], BANK.double(), np.zeros((1, 1, 1, 1, 1), dtype=np.int32)])
def test_banked_refuses_what_is_no_bank(bank):
    with pytest.raises(InputError, match="bank"):
        Banked(bank)


def test_banked_refuses_other_data():
    x, _, rows = batch()
    with pytest.raises(InputError, match=r"0\.\.39"):
        Banked(BANK).pair(x, None, rows + 1, generator())
    with pytest.raises(InputError, match="shape"):
        Banked(BANK).pair(x[:, :, :2], None, rows, generator())
