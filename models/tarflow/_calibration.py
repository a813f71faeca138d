"""Choosing, for each block of a trained flow, the cheapest schedule that decodes it well."""

import torch
from torch import Tensor

from models.evaluating import evaluating
from models.tarflow._checks import check_images, check_labels
from models.tarflow._decoding import SEQUENTIAL, BlockWork, Inverse
from models.tarflow._flow import TarFlow
from models.tarflow._guidance import Guidance
from models.tarflow._schedules import GaussSeidelJacobi, Jacobi, Schedule

SEGMENTS = (2, 4, 8, 16, 32)
# An iterate that moves by less than the tolerance may still be a few times that from where it would end.
ERROR_IN_TOLERANCES = 10.0


@torch.no_grad()
def calibrate(
    flow: TarFlow,
    z: Tensor,
    labels: Tensor | None = None,
    *,
    tolerance: float = 1e-2,
    guidance: Guidance | None = None,
    attention_temperature: float = 1.0,
    call_cost: float,
) -> tuple[Schedule, ...]:
    """Find a schedule for each block on a small batch, as GS-Jacobi does (arXiv 2505.12849): by trying.

    Each block is decoded exactly, and by every candidate. Of those within ten tolerances of the exact result, the one
    of least cost is taken, where a network call costs as much as its tokens and ``call_cost`` more.

    Args:
        flow: the trained flow.
        z, labels, guidance, attention_temperature: as for `decode`; z ~ N(0, I), and about as many rows as in use.
        tolerance: that of the candidates, see `Jacobi`.
        call_cost: fixed cost of a network call in units of one token's.

    Returns:
        A schedule for each block in the order of ``flow.blocks``, fit for `decode`.

    Raises:
        ValueError: if an argument does not fit the flow.
    """
    config = flow.config
    check_images(z, config, flow.dtype)
    check_labels(labels, len(z), config.classes)
    candidates: list[Schedule] = []
    for start in ("latent", "zeros"):
        candidates.append(Jacobi(tolerance, start=start))
        candidates += [
            GaussSeidelJacobi(segments, tolerance, start=start) for segments in SEGMENTS if segments < config.tokens - 1
        ]
    chosen: list[Schedule] = []
    with evaluating(flow):
        inverse = Inverse(flow, labels, len(z), guidance, attention_temperature)
        tokens = inverse.tokens_of(z)  # (B, T, D)
        for index in reversed(range(config.blocks)):
            tokens = flow.in_order(tokens, index)
            exact, work = inverse.of_block(index, tokens, SEQUENTIAL)
            costs: dict[Schedule, float] = {SEQUENTIAL: _cost(work, call_cost)}
            for candidate in candidates:
                x, work = inverse.of_block(index, tokens, candidate)
                if (x - exact).abs().max() <= ERROR_IN_TOLERANCES * tolerance:  # false for a NaN
                    costs[candidate] = _cost(work, call_cost)
            chosen.append(min(costs, key=costs.__getitem__))
            tokens = flow.in_order(exact, index)
    return tuple(reversed(chosen))


def _cost(work: BlockWork, call_cost: float) -> float:
    return work.tokens + call_cost * work.calls
