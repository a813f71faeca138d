"""The distributions that training times are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from pipeline.recipe import sections


class TimeDistribution(Protocol):
    """Where training times come from."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw (n,) float32 times with a CPU generator."""


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2): most of the effort in mid-path (Esser et al. 2024, arXiv 2403.03206, sec. 3.1).

    The defaults are those of the NFM paper (arXiv 2603.09014). The skewed sampler of flow_matching's CIFAR-10 recipe is
    `LogitNormal(-1.2, 1.2)` in our time.

    Attributes:
        std: above 0.
    """

    mean: float = -0.2
    std: float = 1.0

    def sample(self, n: int, generator: Generator) -> Tensor:
        normal = torch.randn(n, generator=generator, dtype=torch.float64)
        return _inside(torch.sigmoid(self.mean + self.std * normal))

    def quantile(self, p: Tensor) -> Tensor:
        """The times below which a share p of all draws lies: (N,) float64 for p (N,) in [0, 1]; exact at 0 and 1."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(p.double()))


@dataclass(frozen=True)
class Uniform:
    """t ~ U(0, 1)."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        return _inside(torch.rand(n, generator=generator, dtype=torch.float64))


@dataclass(frozen=True)
class UShaped:
    """p(t) = a (exp(a t) + exp(a (1 - t))) / (2 (exp(a) - 1)), most at both ends and symmetric about t = 1/2.

    For reflow: what a student has yet to learn of the pairs of another lies at the ends of the path (Lee et al. 2024,
    arXiv 2405.20320, sec. 4.1, with a = 4). The paper writes exp(a u) + exp(-a u), which has this shape where u runs
    from -1/2 to 1/2; so here p(t) is proportional to cosh(a (t - 1/2)). a towards 0 is the uniform distribution.

    Attributes:
        a: in (0, 50]; beyond, float32 has no times near enough to the ends.
    """

    a: float = 4.0

    def quantile(self, p: Tensor) -> Tensor:
        """The times below which a share p of all draws lies: (N,) float64 for p (N,) in [0, 1]."""
        return 0.5 + torch.asinh((2 * p.double() - 1) * math.sinh(self.a / 2)) / self.a

    def sample(self, n: int, generator: Generator) -> Tensor:
        return _inside(self.quantile(torch.rand(n, generator=generator, dtype=torch.float64)))


@dataclass(frozen=True)
class At:
    """One time in [0, 1] for all; `At(1.0)` sees pure noise only, which is one-step distillation. Draws nothing."""

    time: float = 1.0

    def sample(self, n: int, generator: Generator) -> Tensor:
        del generator
        return torch.full((n,), self.time)


_DISTRIBUTIONS: dict[type[sections.Config], type[TimeDistribution]] = {
    sections.LogitNormalTime: LogitNormal,
    sections.UniformTime: Uniform,
    sections.UShapedTime: UShaped,
}


def times_of_config(config: sections.Time) -> TimeDistribution:
    """The distribution of a recipe's section, which has validated its numbers."""
    return _DISTRIBUTIONS[type(config)](**config.model_dump(exclude={"kind"}))


def _inside(t: Tensor) -> Tensor:
    """To float32 without rounding onto 0 or 1, where a path's weighting or a network's logit of t may be infinite."""
    tiny = torch.finfo(torch.float32).tiny
    return t.float().clamp(tiny, 1 - 2**-24)
