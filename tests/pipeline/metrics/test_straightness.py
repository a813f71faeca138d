import math

import pytest
import torch

from pipeline.flow_matching.solvers import CountedField
from pipeline.metrics.straightness import path_shape, straightness


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_straight_paths_score_zero():
    z, x = normal(8, 1, 4, 4), normal(8, 1, 4, 4) * 0.3 + 1
    shape = path_shape(lambda *_: z - x, z)
    assert shape.straightness < 1e-12 and shape.curvature < 1e-12


def test_independent_gaussians_in_closed_form():
    # x, z ~ N(0, 1) independent: v = (2t - 1) x_t / r^2 with r^2 = t^2 + (1 - t)^2 and x_t = r z. The chord is 0, so
    # the integral of |v|^2 is that of u^2 / (1 + u^2) over -1..1, 2 - pi/2, times z^2.
    def velocity(x, t):
        t = t[:, None]
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

    z = normal(500, 16)
    expected = (2 - math.pi / 2) * float(z.square().mean())
    assert straightness(velocity, z, 1000) == pytest.approx(expected, rel=5e-3)
    assert straightness(velocity, z) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("steps", [16, 64])
def test_curvature_of_a_rotation(steps):
    # An Euler step of length h turns the velocity by atan(3 h).
    field = CountedField(lambda x, t: 3 * torch.stack([-x[:, 1], x[:, 0]], 1))
    expected = 1 - 1 / math.sqrt(1 + (3 / steps) ** 2)
    assert path_shape(field, normal(10, 2), steps).curvature == pytest.approx(expected, rel=1e-9)
    assert field.calls == steps


def test_a_single_step_turns_nowhere():
    assert path_shape(lambda x, t: x, normal(4, 2), 1).curvature == 0


def test_single_precision_images():
    z = normal(4, 1, 8, 8).float()
    before = z.clone()
    assert 0 < straightness(lambda x, t: -x * t[:, None, None, None], z) < 1
    assert torch.equal(z, before)
