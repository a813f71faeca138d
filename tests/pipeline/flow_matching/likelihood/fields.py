"""Fields whose densities are known."""

import torch

# Not normal: A and its transpose do not commute, so that states are sheared, not only stretched and turned.
SHEAR = torch.tensor([[0.5, 2.0, 0.0], [0.0, -0.3, 1.0], [-0.7, 0.0, 0.2]], dtype=torch.float64)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def log_normal(x, mean=0.0, std=1.0):
    """log N(x; mean, std^2) summed over dimensions: (B, ...) to (B,)."""
    mean, std = torch.as_tensor(mean, dtype=x.dtype), torch.as_tensor(std, dtype=x.dtype)
    return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)


def linear(x, t):
    return x @ SHEAR.T


def gaussians(mean, std):
    """E[z - x | x_t] for independent x ~ N(mean, std^2) and z ~ N(0, 1): it carries the one onto the other."""

    def velocity(x, t):
        t = t.view(-1, *[1] * (x.ndim - 1))
        variance = ((1 - t) * std) ** 2 + t**2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    return velocity
