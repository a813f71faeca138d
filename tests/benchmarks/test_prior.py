"""The path of the prior's correction, against the derivative and the variance that it must have."""

import torch

from benchmarks.prior import on_path


def test_the_path_keeps_the_variance_and_its_velocity_is_the_derivative():
    z, noise = torch.randn(2, 4096, 1, 2, 2, dtype=torch.float64)
    s = torch.linspace(0, 1, 4096, dtype=torch.float64)
    y, velocity = on_path(z, noise, s)
    _, derivative = torch.func.jvp(lambda s: on_path(z, noise, s)[0], (s,), (torch.ones_like(s),))
    torch.testing.assert_close(velocity, derivative)
    torch.testing.assert_close(y[0], z[0])
    torch.testing.assert_close(y[-1], noise[-1])
    ends = z[:, 0, 0, 0].var() + noise[:, 0, 0, 0].var()  # at every s the variance is a mean of these two
    assert abs(y.var() - ends / 2) < 0.05
    assert abs((y * velocity).mean()) < 0.05  # no change of size on average, so none for Gaussian z
