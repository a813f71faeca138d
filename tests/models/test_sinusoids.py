"""Features of time tell times apart, whatever the precision around them; a condition follows its image."""

import math

import pytest
import torch

from models.velocity import sinusoids, with_condition


def test_features_are_cosines_and_sines_of_a_thousand_times_t():
    features = sinusoids(torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), 6)
    assert features.dtype == torch.float64 and features.shape == (3, 6)
    frequencies = [10_000 ** (-k / 3) for k in range(3)]
    for row, t in zip(features, (0.0, 0.25, 1.0), strict=True):
        expected = [f(1000 * t * w) for f in (math.cos, math.sin) for w in frequencies]
        assert row.tolist() == pytest.approx(expected, abs=1e-9)


def test_nearby_times_differ_and_half_precision_is_left_before_the_angles():
    near = sinusoids(torch.tensor([0.5, 0.501]), 256)
    assert (near[0] - near[1]).abs().max() > 0.5
    half = torch.tensor([0.7], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        features = sinusoids(half, 256)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, sinusoids(half.double(), 256).float(), atol=1e-3, rtol=0)


def test_condition_follows_the_image_on_the_channels():
    x, condition = torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4)
    joined = with_condition(x, condition)
    assert torch.equal(joined[:, :3], x) and torch.equal(joined[:, 3:], condition)
    assert with_condition(x, None) is x
