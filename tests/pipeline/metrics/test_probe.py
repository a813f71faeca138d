"""A classifier of noises, held against laws whose best accuracy is known."""

import math

import pytest
import torch

from pipeline.metrics import sliced_w2_to_normal
from pipeline.metrics.probe import class_leak, probes, two_sample_accuracy
from storage.errors import InputError

COUNT, DIMENSIONS = 2000, 16


def normal(seed=0, count=COUNT):
    return torch.randn(count, DIMENSIONS, generator=torch.Generator().manual_seed(seed))


def correlated(z, rho=0.8):
    """Two of the dimensions correlated; their own laws stay N(0, 1)."""
    z = z.clone()
    z[:, 1] = rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]
    return z


def bayes_of_correlated(rho=0.8):
    """(1 + TV) / 2 of that law and N(0, I), by the exact ratio of densities on samples of both."""
    x = normal(7, 100_000).double()

    def log_ratio(x):
        a, b = x[:, 0], x[:, 1]
        quadratic = (a**2 + b**2 - 2 * rho * a * b) / (1 - rho**2) - a**2 - b**2
        return -0.5 * math.log(1 - rho**2) - 0.5 * quadratic

    return float(((log_ratio(correlated(x)) > 0).double().mean() + (log_ratio(x) <= 0).double().mean()) / 2)


@pytest.mark.parametrize(("seed", "labels"), [(0, None), (1, torch.arange(COUNT) % 10)])
def test_true_noise_is_not_told_apart(seed, labels):
    probe = two_sample_accuracy(normal(seed), labels, seed)
    assert probe.standard_error == pytest.approx(0.5 / math.sqrt(2 * COUNT)) and probe.decisions == 2 * COUNT
    assert abs(probe.accuracy - 0.5) < 3 * probe.standard_error


def test_a_shift_is_seen_as_far_as_its_total_variation_allows():
    z, shift = normal(), 1.5
    z[:, 0] += shift
    best = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))  # Phi(shift / 2)
    probe = two_sample_accuracy(z)
    assert best - 0.05 < probe.accuracy < best + 3 * probe.standard_error


def test_a_dependency_that_sliced_distances_miss_is_seen():
    z = correlated(normal())
    assert sliced_w2_to_normal(z) < 2 * sliced_w2_to_normal(normal(3))
    probe, best = two_sample_accuracy(z), bayes_of_correlated()
    assert 0.5 + 10 * probe.standard_error < probe.accuracy < best + 3 * probe.standard_error


@pytest.mark.slow
def test_a_law_that_depends_on_the_class_is_seen_given_the_class():
    labels = torch.arange(COUNT) % 2
    z = normal()
    z[:, 0] = z[:, 0].abs() * (2 * labels - 1)  # N(0, 1) over both classes
    with_class, without = two_sample_accuracy(z, labels), two_sample_accuracy(z)
    assert abs(without.accuracy - 0.5) < 3 * without.standard_error
    assert with_class.accuracy == pytest.approx(0.75, abs=0.06)  # total variation 1/2 in each class


@pytest.mark.slow
def test_the_class_leaks_as_far_as_the_noise_depends_on_it():
    labels = torch.arange(COUNT) % 4
    nothing = class_leak(normal(), labels)
    assert nothing.chance == 0.25 and abs(nothing.accuracy - 0.25) < 3 * nothing.standard_error
    z = normal()
    z[:, 0] += 2.0 * (labels == 0)
    # Best: class 0 where its density exceeds the others' single one, any other class elsewhere.
    x = torch.linspace(-8, 10, 20_001, dtype=torch.float64)
    density = [torch.exp(-0.5 * (x - mean) ** 2) / math.sqrt(2 * math.pi) for mean in (2.0, 0.0)]
    best = 0.25 * float(torch.trapezoid(torch.maximum(*density), x))
    assert best - 0.05 < class_leak(z, labels).accuracy < best + 3 * nothing.standard_error


def test_one_seed_gives_one_figure_and_leaves_the_random_state_alone():
    z, labels = normal(count=100), torch.arange(100) % 3
    before = torch.get_rng_state()
    assert probes(z, labels, 5) == probes(z, labels, 5) != probes(z, labels, 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert probes(z[:15], labels[:15]) == {"two_sample": None, "class_leak": None}
    assert probes(z, None)["class_leak"] is None
    with pytest.raises(InputError) as raised:
        two_sample_accuracy(z[:15])
    assert raised.value.value == 15
