"""What all couplings have in common, and the two plain ones."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Banked, Entropic, Independent, MinibatchOT, Mixed, Online, Softened, Standard
from storage.errors import InputError

BANK = torch.arange(3 * 40, dtype=torch.float32).reshape(3, 40, 1, 1, 1).expand(3, 40, 1, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=40, shape=(1, 4, 4), seed=9):
    x = torch.rand(n, *shape, generator=generator(seed)) * 2 - 1
    return x, torch.randint(4, (n,), generator=generator(seed)), torch.arange(n)


@pytest.mark.parametrize("coupling", [Independent(), MinibatchOT(), Entropic(0.1), Banked(BANK)])
def test_shape_type_and_determinism(coupling):
    x, labels, rows = batch()
    before = x.clone()
    z = coupling.noise_for(x, labels, rows, generator())
    assert z.shape == x.shape and z.dtype == torch.float32 and torch.equal(x, before)
    assert torch.equal(z, coupling.noise_for(x, labels, rows, generator()))
    assert not torch.equal(z, coupling.noise_for(x, labels, rows, generator(1)))


def test_independent_is_standard_normal():
    x = torch.zeros(2000, 1, 4, 4)
    z = Independent().noise_for(x, None, torch.arange(2000), generator())
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def test_banked_draws_vary_and_rows_do_not():
    x, _, _ = batch()
    rows = torch.randint(40, (40,), generator=generator())
    z = Banked(BANK).noise_for(x, None, rows, generator())[:, 0, 0, 0].long()
    assert torch.equal(z % 40, rows) and set((z // 40).tolist()) == {0, 1, 2}


def test_banked_in_half_precision_and_as_an_array():
    x, _, rows = batch()
    z = Banked(BANK).noise_for(x, None, rows, generator())
    for bank in (BANK.half(), BANK.numpy(), BANK.half().numpy()):
        assert torch.equal(Banked(bank).noise_for(x, None, rows, generator()), z)


@pytest.mark.parametrize("bank", [BANK[0], BANK[:0], BANK.double(), np.zeros((1, 1, 1, 1, 1), dtype=np.int32)])
def test_banked_refuses_what_is_no_bank(bank):
    with pytest.raises(InputError):
        Banked(bank)


def test_banked_refuses_other_data():
    x, _, rows = batch()
    with pytest.raises(InputError):
        Banked(BANK).noise_for(x, None, rows + 1, generator())
    with pytest.raises(InputError):
        Banked(BANK).noise_for(x[:, :, :2], None, rows, generator())


class Tripled:
    """z = 3 x: its moments given x are known."""

    def noise_for(self, x, labels, rows, generator):
        return 3 * x


@pytest.mark.parametrize("soften", [0.0, 0.4, 1.0])
def test_softened_noise_has_the_moments_of_the_blend(soften):
    x = torch.randn(20_000, 1, 2, 2, generator=generator(4))
    z = Softened(Tripled(), soften).noise_for(x, None, torch.arange(20_000), generator())
    share = (1 - soften**2) ** 0.5
    rest = z - share * 3 * x
    assert rest.std().item() == pytest.approx(soften, abs=0.01)
    assert (rest * x).mean().item() == pytest.approx(0, abs=0.01)
    assert (z * x).mean().item() == pytest.approx(3 * share, abs=0.05)
    normal = Softened(Independent(), soften).noise_for(x, None, torch.arange(20_000), generator())
    assert normal.std().item() == pytest.approx(1, abs=0.01)
    if soften == 0:
        assert torch.equal(z, 3 * x)


def test_mixed_replaces_the_share_that_was_asked_for():
    x = torch.ones(4000, 1, 2, 2)
    z = Mixed(Tripled(), 0.25).noise_for(x, None, torch.arange(4000), generator())
    fresh = (z != 3).flatten(1).all(1)
    assert (z[~fresh] == 3).all() and fresh.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert z[fresh].mean().item() == pytest.approx(0, abs=0.05) and z[fresh].std().item() == pytest.approx(1, abs=0.05)


class TripledByClass(torch.nn.Module):
    """f(x, c) = 3 x + c."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(3.0))

    def encode(self, x, labels):
        return self.factor * x + labels.view(-1, 1, 1, 1)


def test_online_noise_is_that_of_the_noisy_image_over_sigma():
    x, labels, rows = batch(20_000)
    z = Online(TripledByClass(), 0.5, Standard(2.0)).noise_for(x, labels, rows, generator())
    rest = z - (3 * x + labels.view(-1, 1, 1, 1)) / 2  # (f(x + eta eps, c) - f(x, c)) / sigma, of std 3 eta / sigma
    assert rest.std().item() == pytest.approx(0.75, abs=0.01) and rest.mean().item() == pytest.approx(0, abs=0.01)
    again = Online(TripledByClass(), 0.5, Standard(2.0)).noise_for(x, labels, rows, generator(1))
    assert ((again - z) ** 2).mean().item() == pytest.approx(2 * 0.75**2, rel=0.02)
