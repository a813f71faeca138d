"""The distributions that training times are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Generator, Tensor

from storage.errors import InputError


class TimeDistribution(Protocol):
    """Where training times come from."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw (n,) float32 times with a CPU generator."""


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2): most of the effort in mid-path (Esser et al. 2024, arXiv 2403.03206, sec. 3.1).

    The defaults are those of the NFM paper (arXiv 2603.09014). The skewed sampler of flow_matching's CIFAR-10 recipe is
    `LogitNormal(-1.2, 1.2)` in our time.

    Raises:
        InputError: `std` is not positive, or a number is not finite.
    """

    mean: float = -0.2
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise InputError(
                "A logit-normal needs a finite mean and a positive std", (self.mean, self.std), "Use e.g. -0.2 and 1."
            )

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

    Raises:
        InputError: `a` is not positive, or above 50, where float32 has no times near enough to the ends.
    """

    a: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.a <= 50:
            raise InputError("U-shaped times need a in (0, 50]", self.a, "Use e.g. 4.")

    def quantile(self, p: Tensor) -> Tensor:
        """The times below which a share p of all draws lies: (N,) float64 for p (N,) in [0, 1]."""
        return 0.5 + torch.asinh((2 * p.double() - 1) * math.sinh(self.a / 2)) / self.a

    def sample(self, n: int, generator: Generator) -> Tensor:
        return _inside(self.quantile(torch.rand(n, generator=generator, dtype=torch.float64)))


@dataclass(frozen=True)
class At:
    """One time for all; `At(1.0)` sees pure noise only, which is one-step distillation. Draws nothing.

    Raises:
        InputError: `time` is outside [0, 1].
    """

    time: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.time <= 1:
            raise InputError("A training time lies in [0, 1]", self.time, "t = 0 is data, t = 1 is noise.")

    def sample(self, n: int, generator: Generator) -> Tensor:
        del generator
        return torch.full((n,), self.time)


_DISTRIBUTIONS = {"logit-normal": LogitNormal, "uniform": Uniform, "u-shaped": UShaped}


def time_distribution(spec: Mapping[str, object]) -> TimeDistribution:
    """Build a distribution from plain data, as found in a recipe: `{"kind": "logit-normal", "mean": -0.2, "std": 1}`.

    Raises:
        InputError: unknown kind, or a setting that this kind does not have.
    """
    settings = {name: value for name, value in spec.items() if name != "kind"}
    try:
        kind = _DISTRIBUTIONS[str(spec.get("kind"))]
    except KeyError:
        known = ", ".join(_DISTRIBUTIONS)
        raise InputError("Training times need a known kind", spec.get("kind"), f"Choose among {known}.") from None
    known = [field.name for field in fields(kind)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        rule = f"{spec['kind']} times have the settings {', '.join(known) or 'none'}"
        raise InputError(rule, unknown, "Remove the others.")
    return kind(**settings)


def _inside(t: Tensor) -> Tensor:
    """To float32 without rounding onto 0 or 1, where a path's weighting or a network's logit of t may be infinite."""
    tiny = torch.finfo(torch.float32).tiny
    return t.float().clamp(tiny, 1 - 2**-24)
