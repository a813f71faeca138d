"""A score sums up all batches of its samples."""

import pytest
import torch

from pipeline.data.levels import as_stored
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.metrics import Moments, Pixels, frechet_distance
from tests.pipeline.jobs import job


def test_calls_are_their_mean_over_batches_and_every_sample_counts_once(tmp_path):
    """Dopri5 makes as many calls as a batch needs."""
    z = torch.randn(12, 1, 2, 2, generator=torch.Generator().manual_seed(0)) / 2
    real = Moments.of(torch.randn(50, 4, generator=torch.Generator().manual_seed(1)))
    held_out = Moments.of(torch.randn(7, 4, generator=torch.Generator().manual_seed(2)))
    seen = []

    def make(rows, labels):
        seen.append((rows.tolist(), labels.tolist()))
        return z[rows], {0: 20.0, 4: 26.0, 8: 56.0}[int(rows[0])]

    evaluator = Evaluator(
        Pixels(),
        real,
        12,
        torch.arange(12) % 5,
        256,
        4,
        torch.device("cpu"),
        {"metric": "FD-pixels"},
        lambda samples: samples,
        held_out=held_out,
        like_held_out=torch.arange(12) % 2 == 0,
    )
    [score], stored = evaluator.score(
        SamplerUnderTest("student", "dopri5", 0, {"guidance": 1.0}, make), job(tmp_path, "evaluation")
    )
    assert seen == [(list(range(k, k + 4)), [row % 5 for row in range(k, k + 4)]) for k in (0, 4, 8)]
    assert score.nfe == pytest.approx(34)
    generated = Moments.of(as_stored(z, 256).flatten(1))
    assert score.value == pytest.approx(frechet_distance(real, generated), rel=1e-6)
    assert score.value_held_out == pytest.approx(frechet_distance(held_out, generated), rel=1e-6)
    as_many = Moments.of(as_stored(z[::2], 256).flatten(1))
    assert score.value_at_equal_count == pytest.approx(frechet_distance(real, as_many), rel=1e-6)
    assert torch.equal(stored, as_stored(z, 256))
    assert score.protocol == {"metric": "FD-pixels", "guidance": 1.0}


def test_calls_are_the_mean_over_samples_whatever_their_batches(tmp_path):
    z, real = torch.randn(10, 1, 2, 2), Moments.of(torch.randn(50, 4))
    evaluator = Evaluator(
        Pixels(), real, 10, None, 256, 4, torch.device("cpu"), {"metric": "FD-pixels"}, lambda samples: samples
    )
    calls = {4: 10.0, 2: 40.0}  # by the size of a batch: two of four, and one of two
    sampler = SamplerUnderTest("student", "dopri5", 0, {}, lambda rows, labels: (z[rows], calls[len(rows)]))
    [score], _ = evaluator.score(sampler, job(tmp_path, "evaluation"))
    assert score.nfe == pytest.approx((8 * 10 + 2 * 40) / 10)


def test_one_sample_that_is_like_a_held_out_image_has_no_distance(tmp_path):
    z, real = torch.zeros(4, 1, 2, 2), Moments.of(torch.randn(50, 4))
    evaluator = Evaluator(
        Pixels(), real, 4, None, 256, 4, torch.device("cpu"), {"metric": "FD-pixels"}, lambda samples: samples,
        like_held_out=torch.arange(4) == 0,
    )  # fmt: skip
    sampler = SamplerUnderTest("student", "euler", 1, {}, lambda rows, labels: (z[rows], 1.0))
    [score], _ = evaluator.score(sampler, job(tmp_path, "evaluation"))
    assert score.value_at_equal_count is None
