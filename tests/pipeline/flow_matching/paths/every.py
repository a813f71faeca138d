"""The paths that tests run over, and Gaussian data, for which each of them is known in closed form."""

import torch

from pipeline.flow_matching.paths import LINEAR, OptimalTransport, VarianceExploding, VariancePreserving

PATHS = [LINEAR, OptimalTransport(0.01), VariancePreserving(), VarianceExploding(0.01, 20.0)]


def pair(dtype=torch.float64):
    """x, z (5, 3, 4, 4) and a time for each row, (5,)."""
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(5, 3, 4, 4, generator=generator, dtype=dtype) for _ in range(2))
    return x, z, torch.rand(5, generator=generator, dtype=dtype)


def inner(path, n=41):
    """Times in [t_end, 1] where s > 0, float64."""
    return torch.linspace(max(path.t_end, 1e-3), 1, n, dtype=torch.float64)


class Gaussian:
    """Data N(mean, std^2) in every dimension, the noise independent: x_t is N(a mean, a^2 std^2 + s^2)."""

    def __init__(self, path, mean, std):
        self.path, self.mean, self.std = path, mean, std

    def moments(self, t):
        a, s, _, _ = self.path.coefficients(t)
        return a * self.mean, ((a * self.std) ** 2 + s**2).sqrt()

    def velocity(self, x_t, t):
        """E[v | x_t] = a' E[x | x_t] + s' E[z | x_t], with t of a shape that multiplies x_t."""
        a, s, a_slope, s_slope = self.path.coefficients(t)
        off = (x_t - a * self.mean) / ((a * self.std) ** 2 + s**2)
        return a_slope * (self.mean + a * self.std**2 * off) + s_slope * s * off
