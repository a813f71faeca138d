"""Whitening within classes, against the inverse square root that a known covariance has."""

import math

import pytest
import torch

from pipeline.couplings import ClassMoments, Standard, Whitening, check_whitening
from storage.errors import InputError

D = 12


def random_covariance(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.diag(torch.linspace(0.3, 2.5, D, dtype=torch.float64)) @ basis.T


def noises(covariance, mean, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, D, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T + mean
    return z.float().view(count, 1, 3, 4)


def test_the_matrix_is_the_symmetric_inverse_root_of_the_covariance():
    covariance, mean = random_covariance(1), torch.linspace(-0.5, 0.5, D, dtype=torch.float64)
    moments = ClassMoments(D)
    for part in noises(covariance, mean, 200_000).split(1000):
        moments.add(part)
    m, matrix = moments.whitening()
    torch.testing.assert_close(m.double(), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(
        matrix.double() @ covariance @ matrix.double(), torch.eye(D, dtype=torch.float64), atol=0.02, rtol=0
    )


def test_no_noise_gives_the_identity_and_few_noises_something_near_it():
    mean, matrix = ClassMoments(D).whitening()
    assert not mean.any() and torch.allclose(matrix, torch.eye(D))
    moments = ClassMoments(D)
    moments.add(torch.full((1, 1, 3, 4), 2.0))
    mean, matrix = moments.whitening()
    # One noise of weight 1 / (1 + D): variance D / (1 + D) where it does not point, and its own square where it does.
    variances = torch.linalg.eigvalsh(matrix.double()) ** -2
    along = (D + 4 * D) / (1 + D) - 4 * D / (1 + D) ** 2
    torch.testing.assert_close(mean, torch.full((D,), 2 / (1 + D)))
    assert variances.max().item() == pytest.approx(along) and variances.min().item() == pytest.approx(D / (1 + D))


def test_each_class_is_whitened_by_its_own_map_after_division():
    maps = [torch.eye(D), 2 * torch.eye(D)]
    whitening = Whitening(torch.stack([torch.zeros(D), torch.ones(D)]), torch.stack(maps))
    f, labels = torch.randn(6, 1, 3, 4), torch.tensor([1, 0, 1, 1, 0, 0])
    z = Standard(4.0, whitening)(f, labels)
    assert torch.equal(z[labels == 0], f[labels == 0] / 4)
    torch.testing.assert_close(z[labels == 1], 2 * (f[labels == 1] / 4 - 1))
    assert torch.equal(Standard(4.0)(f, labels), f / 4)
    alone = Standard(4.0, Whitening(torch.ones(1, D), torch.eye(D)[None]))
    torch.testing.assert_close(alone(f, None), f / 4 - 1)


def test_too_many_numbers_are_refused():
    check_whitening(10, 3 * 32 * 32)
    with pytest.raises(InputError) as refused:
        check_whitening(1000, 3 * 64 * 64)
    assert str(math.prod((3, 64, 64))) in str(refused.value.value)
