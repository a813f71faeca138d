"""The density of a continuous normalizing flow, by the instantaneous change of variables.

    dx/dt = v(x, t),  x(0) = x,  x(1) = z        log p(x) = log N(z; 0, I) + integral over 0 < t < 1 of div v(x(t), t)

Chen et al. 2018, arXiv 1806.07366, eq. 8 and appendix A; with random probes: FFJORD, Grathwohl et al. 2019, arXiv
1810.01367. They go from noise to data, where the integral has the other sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pipeline.flow_matching.likelihood import _divergence
from pipeline.flow_matching.likelihood._divergence import EXACT_DIMENSIONS, Divergence
from pipeline.flow_matching.solvers import CountedField, Velocity, adaptive
from storage.errors import InputError


@dataclass(frozen=True)
class Likelihood:
    """The log-densities of a batch, by one integration.

    Attributes:
        log_density: (B,) float64, log p(x) in nats, summed over dimensions.
        probe_error: (B,) float64, standard error of `log_density` that is due to the probes: 0 if the divergence was
            exact, NaN if there was one probe only.
        noise: (B, ...), the other end of each path, z.
        calls: network calls on the batch. All but the first evaluation, which checks the velocity, were each followed
            by a backward pass for each probe or, if exact, dimension.
        probes: number of probes; 0 if the divergence was exact.
    """

    log_density: Tensor
    probe_error: Tensor
    noise: Tensor
    calls: int
    probes: int


def log_density(
    velocity: Velocity,
    x: Tensor,
    *,
    divergence: str = "auto",
    probes: int = 4,
    generator: Generator | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    """Integrate x from t = 0 to noise at t = 1 and integrate its log-density with it, by dopri5.

    The step is one for the whole batch. It is chosen so that the root mean square error of a step, over the batch,
    stays below the tolerance for the states and for the log-densities alike. The probes are drawn once and stay the
    same during the integration, so that the field that is integrated is smooth.

    Args:
        velocity: (x (B, ...), t (B,)) -> (B, ...), differentiable by autograd, each row by itself (no batch norm).
            Networks should be in eval mode.
        x: (B, ...) data, of any floating type; integrated in float32, or float64 if it is; not changed.
        divergence: `exact`, `hutchinson`, or `auto`: exact up to `EXACT_DIMENSIONS`, 64.
        probes: K, for `hutchinson`; twice as many halve the variance at about twice the time.
        generator: a CPU generator to draw the probes with. Not needed, nor used, where the divergence is exact.
        rtol, atol: tolerances of a step, relative and absolute.

    Raises:
        InputError: an argument is out of range, or the velocity cannot be differentiated or has another shape than x.
        StageFailed: the tolerance cannot be met (a velocity that is not finite, most often).
    """
    if x.ndim < 2 or not x.numel() or not x.is_floating_point():
        raise InputError(
            "x must be a batch (B, ...) of floating type",
            (x.dtype, tuple(x.shape)),
            "Convert images to [-1, 1], and give one point as a batch of one.",
        )
    counted = CountedField(velocity)
    with torch.inference_mode(False):
        x = x.detach().to(x.dtype if x.dtype == torch.float64 else torch.float32, copy=True)
        method, count = _method(divergence, probes, generator, x)
        _require_differentiable(counted, x)
        z, integrals = _integrate(counted, x, method, max(count, 1), rtol, atol)
    integrals = integrals.double()  # (K, B)
    log_normal = -0.5 * (z.double().square().flatten(1).sum(1) + z[0].numel() * math.log(2 * math.pi))
    error = integrals.std(0) / count**0.5 if count > 1 else integrals.new_full((len(x),), math.nan if count else 0.0)
    return Likelihood(log_normal + integrals.mean(0), error, z, counted.calls, count)


def _method(divergence: str, probes: int, generator: Generator | None, x: Tensor) -> tuple[Divergence, int]:
    """The function for the divergence, and its number of probes: 0 if exact."""
    if divergence not in ("auto", "exact", "hutchinson"):
        raise InputError("divergence must be auto, exact or hutchinson", divergence, "Choose one of these.")
    if divergence == "exact" or (divergence == "auto" and x[0].numel() <= EXACT_DIMENSIONS):
        return _divergence.exact, 0
    if probes < 1:
        raise InputError("probes must be at least 1", probes, "4 are usual.")
    if generator is None:
        raise InputError(
            "generator must be given for random probes", None, "Give torch.Generator().manual_seed(0), say."
        )
    return _divergence.hutchinson(_divergence.rademacher(probes, x, generator)), probes


def _require_differentiable(velocity: Velocity, x: Tensor) -> None:
    """Raise if v has no gradient by x: its divergence would be 0 and every density wrong."""
    x, t = x.clone().requires_grad_(), x.new_zeros(len(x))
    with torch.enable_grad():
        v = velocity(x, t)
    if v.shape != x.shape:
        raise InputError(
            f"The velocity must have the shape of its state, {tuple(x.shape)}", tuple(v.shape), "Correct the field."
        )
    (slope,) = torch.autograd.grad(v.sum(), x, allow_unused=True) if v.requires_grad else (None,)
    if slope is None and not torch.equal(v, velocity(x.detach() + 1, t)):
        raise InputError(
            "The velocity must be differentiable by x",
            "no gradient",
            "Remove torch.no_grad, torch.inference_mode and detach from it.",
        )


def _integrate(
    velocity: Velocity, x: Tensor, divergence: Divergence, estimates: int, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """z (B, ...) and the integrals (K, B) of the divergence on the way there."""

    def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = state[0].detach().requires_grad_()
        with torch.enable_grad():
            v = velocity(x, t.to(x.dtype).expand(len(x))).to(x.dtype)
        if not v.requires_grad:
            return v, torch.zeros_like(state[1])
        return v.detach(), divergence(v, x)

    # Given a tuple, torchdiffeq holds the larger of the two parts' errors to the tolerance: among thousands of pixels
    # the one number of the log-density would hardly count.
    with torch.no_grad():
        states, integrals = adaptive(field, (x, x.new_zeros(estimates, len(x))), [0.0, 1.0], x.device, rtol, atol)
    return states[-1], integrals[-1]
