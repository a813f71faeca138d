"""The verdict on a bank's noise: the two-sample test decides, and faults that figures show are named."""

import pytest
import torch

from pipeline.metrics.gaussianity import diagnose
from pipeline.metrics.probe import two_sample_accuracy
from pipeline.reporting.text.noise import ERRORS, SLICED, distinguished, in_words, mean_square, verdict

SQUARE = 1.12  # mean square of noise that is a little too large


def normal(n=800, seed=0, shape=(1, 6, 6)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def figures(z, held_out=None, probe=False):
    test = {"two_sample": vars(two_sample_accuracy(z))} if probe else {}
    return diagnose(z, held_out, (normal(len(z), 9, z.shape[1:]) / 3).clamp(-1, 1)) | test


@pytest.mark.slow
def test_a_scale_that_distances_miss_changes_the_verdict():
    z = normal(2000, shape=(1, 4, 4))
    true, scaled = figures(z, probe=True), figures(SQUARE**0.5 * z, probe=True)
    assert scaled["train"]["sliced_w2"] < scaled["train"]["floor"] + SLICED
    assert distinguished(true) is False and verdict(true) == []
    assert distinguished(scaled) is True and len(verdict(scaled)) == 1
    for one in (true, scaled):
        assert f"{one['two_sample']['accuracy']:.1%}" in in_words(one)
    assert verdict(figures(SQUARE**0.5 * z)) == []  # without the test nothing sees it


def test_the_verdict_follows_the_uncertainty_of_the_test():
    for decisions, expected in ((100, False), (100_000, True)):
        error = 0.5 / decisions**0.5
        test = {"accuracy": 0.53, "chance": 0.5, "standard_error": error, "decisions": decisions}
        assert distinguished({"two_sample": test}) is expected is (ERRORS * error < 0.03)
    for untested in ({}, {"two_sample": None}):
        assert distinguished(untested) is None and in_words(untested) is None


def test_true_noise_passes():
    assert verdict(figures(normal(), normal(200, 1))) == verdict(figures(normal())) == []


def uneven(n, seed):
    # sigma_f makes the overall deviation 1, whatever the dimensions are.
    z = normal(n, seed) * torch.linspace(0.2, 1.8, 36).reshape(1, 6, 6)
    return z / z.std()


FAULTS = {
    "sigma_f": lambda n, seed: normal(n, seed) * 1.3,
    "too weak; train": uneven,
    "outliers": lambda n, seed: normal(n, seed) * torch.where(normal(n, seed + 50, (1, 1, 1)) > 1.3, 2.5, 0.6),
    "worth distilling": lambda n, seed: normal(n, seed, (1, 1, 1)) * 0.8 + normal(n, seed) * 0.6,
}


@pytest.mark.parametrize("said", FAULTS)
def test_faults_are_named(said):
    assert any(said in warning for warning in verdict(figures(FAULTS[said](800, 3))))


def test_overfitted_teacher():
    warnings = verdict(figures(normal(), normal(200, 1) * 1.5))
    assert [warning for warning in warnings if "overfitted" in warning] == warnings != []


@pytest.mark.parametrize(("square", "n", "overfitted"), [(1.0, 300, False), (1.04, 300, False), (1.1, 300, True)])
def test_held_out_noise_that_is_too_large_shows_an_overfitted_teacher(square, n, overfitted):
    shape = (1, 8, 8)
    seen = figures(normal(2000, shape=shape), square**0.5 * normal(n, 1, shape))
    assert seen["held_out"]["sliced_w2"] < seen["held_out"]["floor"] + SLICED  # the distance does not see it
    assert mean_square(seen["held_out"]) == pytest.approx(square, abs=0.02)
    assert len(verdict(seen)) == overfitted


def test_few_held_out_images_prove_nothing():
    few = figures(normal(shape=(1, 2, 2)), 1.1**0.5 * normal(40, 1, (1, 2, 2)))
    assert verdict(few) == []  # 1.1 is within three standard errors, sqrt(2 / 160)
