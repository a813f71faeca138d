"""Bits per dimension: of distributions over grey levels that are known, and their errors."""

import math

import numpy as np
import pytest
import torch

from pipeline.data.levels import quantise, to_unit
from pipeline.flow_matching.likelihood import bin_width, bits_per_dimension, dequantise, log_density
from pipeline.runtime.noise import uniform
from storage.errors import InputError
from tests.pipeline.flow_matching.likelihood.fields import gaussians, log_normal, normal

SHAPE = (1, 4, 4)


def grey(levels, images, weights=None):
    rng = np.random.default_rng(0)
    return rng.choice(levels, size=(images, *SHAPE), p=weights).astype(np.uint8)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_images_fill_the_bins_and_quantise_back(levels):
    v = grey(levels, 200)
    x = torch.from_numpy(to_unit(v, levels))
    y = dequantise(x, levels, uniform(0, range(200), 0, SHAPE))
    assert (quantise(y.numpy(), levels) == v).all()
    within = ((y - x) / bin_width(levels)).flatten()
    assert within.min() < -0.49 and within.max() > 0.49 and abs(float(within.mean())) < 0.03


def test_the_density_that_is_flat_on_bins_reaches_the_entropy_of_the_levels():
    weights = np.array([0.4, 0.1, 0.2, 0.05, 0.25])
    v = grey(5, 500, weights)
    y = dequantise(torch.from_numpy(to_unit(v, 5)), 5, uniform(0, range(500), 0, SHAPE))
    density = torch.from_numpy(weights / bin_width(5))[torch.from_numpy(quantise(y.numpy(), 5)).long()]
    found = bits_per_dimension(density.log().flatten(1).sum(1), SHAPE, 5)
    assert found.mean == pytest.approx(float(-np.log2(weights[v]).mean()), rel=1e-6)
    entropy = -float((weights * np.log2(weights)).sum())
    assert abs(found.mean - entropy) < 4 * found.standard_error < 0.1
    assert found.images == 500 and found.probe_error == 0


def test_bits_under_a_flow_of_gaussians():
    # Images of independent pixels N(0.1, 0.3^2) cut into 256 levels: the entropy is that of the density, less the bin.
    x = 0.1 + 0.3 * normal(400, *SHAPE)
    v = quantise(x.numpy(), 256)
    y = dequantise(torch.from_numpy(to_unit(v)), 256, uniform(0, range(400), 0, SHAPE)).double()
    found = bits_per_dimension(log_density(gaussians(0.1, 0.3), y).log_density, SHAPE, 256)
    by_hand = -float(log_normal(y, 0.1, 0.3).mean()) / 16 / math.log(2) + math.log2(127.5)
    assert found.mean == pytest.approx(by_hand, abs=1e-4)
    entropy = math.log2(0.3 * math.sqrt(2 * math.pi * math.e) * 127.5)
    assert abs(found.mean - entropy) < 4 * found.standard_error < 0.1


def test_errors_by_hand():
    nats = torch.tensor([-1.0, -3.0, -5.0, -7.0])
    found = bits_per_dimension(nats, (1, 1, 2), 17, probe_error=torch.full((4,), 0.5))
    unit = 2 * math.log(2)  # nats in one bit per dimension
    assert found.mean == pytest.approx(4 / unit + 3)  # a bin is 1/8 wide
    assert found.standard_error == pytest.approx(math.sqrt(20 / 3) / 2 / unit)
    assert found.probe_error == pytest.approx(0.5 / 2 / unit)
    assert math.isnan(bits_per_dimension(nats[:1], (1, 1, 2), 17).standard_error)


def test_the_spread_over_images_has_the_probes_in_it():
    # Images all alike: what differs between them is the probes' doing, and both errors say the same.
    turn = normal(16, 16, seed=3)
    x = torch.zeros(1000, 16, dtype=torch.float64)
    found = log_density(
        lambda x, t: x @ turn.T / 4, x, divergence="hutchinson", probes=8, generator=torch.Generator().manual_seed(0)
    )
    bits = bits_per_dimension(found.log_density, (16,), 256, found.probe_error)
    assert bits.probe_error == pytest.approx(bits.standard_error, rel=0.1) and bits.probe_error > 0


def test_refusals():
    with pytest.raises(InputError):
        bin_width(1)
    with pytest.raises(InputError):
        bits_per_dimension(torch.zeros(0), SHAPE, 256)
    with pytest.raises(InputError):
        bits_per_dimension(torch.zeros(3), SHAPE, 256, torch.zeros(2))
