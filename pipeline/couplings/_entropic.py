"""Minibatch optimal transport with entropic regularisation: between the exact assignment and independent pairs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, gaussian_like
from pipeline.couplings._minibatch_ot import gain_deviation, groups

TOLERANCE = 1e-3  # of the plan's marginal on the noise, relative
ITERATIONS = 2000  # of Sinkhorn, at the regularisation asked for
_ANNEALING = 11  # iterations at each greater one before it


@dataclass(frozen=True)
class Entropic(Coupling):
    """Fresh noise, each image's drawn from its row of the entropic plan between the batch's images and noises.

    Tong et al. 2023 (arXiv 2302.00482, SB-CFM) and Pooladian et al. 2023 (arXiv 2304.14772); Sinkhorn's iterations are
    those of Cuturi 2013 (arXiv 1306.0895). The plan P minimises

        sum_ij P_ij |z_j - x_i|^2 + e sum_ij P_ij (log P_ij - 1),    rows and columns of P summing to 1/B each,

    with e = `regularisation` times the standard deviation of the cost less its rows' and columns' means, which is all
    that the plan depends on. Among 128 images of 3x32x32 one shares about 80 noises at 1, 13 at 0.3, 3 at 0.1 and 1.3
    at 0.01, and so it is with images of other sizes. (A share of the mean cost would not do: that grows as D, the
    differences that decide as D^1/2, so that 0.05 of it is sharp for D = 2 and no coupling at all for D = 3072.)

    A plan has no single partner for an image, so it is rounded: z_i is z_j with probability B P_ij, each image by
    itself, as is usual. The plan's columns sum to 1/B, so over the draws z is N(0, I) and each of the B noises is used
    once on average. But within one batch some are used several times and others not at all, with a plan that is far
    from the assignment 37 % of them; `MinibatchOT` uses each exactly once.

    Attributes:
        regularisation: above 0.
        within_classes: with labels, one plan for each class: see `MinibatchOT`.
    """

    regularisation: float
    within_classes: bool = True

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        """See `Coupling.noise_for`. Warns as `plan` does."""
        del rows
        z = gaussian_like(x, generator)
        partner = torch.empty(len(x), dtype=torch.long)
        for members in groups(len(x), labels if self.within_classes else None):  # (b,)
            there = members.to(x.device)
            rows_of_plan = plan(x[there], z[there], self.regularisation).cpu()
            partner[members] = members[torch.multinomial(rows_of_plan, 1, generator=generator).squeeze(1)]
        return z[partner.to(x.device)]


def plan(x: Tensor, z: Tensor, regularisation: float) -> Tensor:
    """The entropic plan of x with z, (b, b) float64 on the device of x. See `Entropic`.

    Rows sum to 1/b to rounding, columns to `TOLERANCE`, in the 2-norm relative to that of the marginal. Where
    Sinkhorn's iterations do not converge to that, a RuntimeWarning says so.

    Args:
        x, z: (b, ...) of equal shape.
        regularisation: positive, in standard deviations of the gain of a pairing.
    """
    cost = (x.flatten(1) @ z.flatten(1).T).mul_(-2).double()  # (b, b); |x|^2 and |z|^2 change no plan
    unit = gain_deviation(cost)
    if unit <= 1e-12 * float(cost.abs().max()):  # images or noises are all the same
        return torch.full_like(cost, (1 / len(x)) ** 2)
    # Small regularisations converge slowly from nothing, and soon from the potentials of one twice as large.
    halvings = max(0, math.ceil(-math.log2(regularisation)))
    u, error = cost.new_zeros(len(x)), math.inf
    for k in range(halvings, -1, -1):
        e = regularisation * 2**k * unit
        transport, u, error = _sinkhorn(-cost / e, u, _ANNEALING if k else ITERATIONS + 1)
        u = 2 * u  # a potential over e, and e halves
    if not error <= TOLERANCE:
        # The text has no number that changes from batch to batch, so Python shows it once.
        warnings.warn(
            f"Sinkhorn's iterations did not converge in {ITERATIONS} at the entropic regularisation "
            f"{regularisation:g}: the noise is less Gaussian than it should be. Use a greater one, or the "
            "exact coupling, ot.",
            RuntimeWarning,
            stacklevel=2,
        )
    return transport


def _sinkhorn(gain: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor, float]:
    """Sinkhorn's iterations on logarithms, until the columns' sums are right to `TOLERANCE`.

    Not POT's: given tensors it makes a generator and a tensor on the first GPU, whichever one computes, and given
    arrays of NumPy it takes four to five times as long at a regularisation of 0.1.

    Args:
        gain: (b, b), minus the cost over e.
        u: (b,), the potential of the rows to start from, over e.
        iterations: their largest number.

    Returns:
        the plan exp(gain_ij + u_i + v_j), its u, and the error of its columns' sums as `plan` has it.
    """
    weights, error = gain.new_full((len(gain),), 1 / len(gain)), math.inf
    logarithms = weights.log()
    for iteration in range(iterations):
        v = logarithms - torch.logsumexp(gain + u[:, None], 0)
        u = logarithms - torch.logsumexp(gain + v, 1)
        if iteration % 10 == 0:  # half the work of an iteration, and a GPU is waited for
            sums = (gain + u[:, None] + v).exp().sum(0)
            error = float((sums - weights).norm()) * math.sqrt(len(gain))
            if error < TOLERANCE:
                break
    return (gain + u[:, None] + v).exp(), u, error
