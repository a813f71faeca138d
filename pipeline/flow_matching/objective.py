"""The student's objective: one trainer for every coupling and every path.

Flow matching: Lipman et al. 2023, arXiv 2210.02747. NFM: Berthelot et al. 2026, arXiv 2603.09014.

    z ~ coupling(x),  t ~ time,  x_t = a(t) x + s(t) z          minimise || g(x_t, t, c) - (a'(t) x + s'(t) z) ||^2

On the straight path, a = 1 - t and s = t, the target is z - x. Students of pairs may take another loss in the place of
the squared error: see `pipeline.flow_matching.losses`.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.data.batches import FlowBatch
from pipeline.flow_matching.losses import SQUARED, Loss
from pipeline.flow_matching.paths import LINEAR, GaussianPath, network_input, network_target


def velocity_error(network: nn.Module, couples: FlowBatch, path: GaussianPath = LINEAR, loss: Loss = SQUARED) -> Tensor:
    """The loss of the velocity in the network's units, mean over the batch: a scalar."""
    x_t = path.interpolate(couples.x, couples.z, couples.t)
    told = {} if couples.condition is None else {"condition": couples.condition}
    answer = network(network_input(path, x_t, couples.t), couples.t, couples.labels, **told)
    return loss(answer, network_target(path, couples.x, couples.z, couples.t), x_t, couples.t)


def transport_cost(couples: FlowBatch) -> dict[str, float]:
    """Squared distance of z and x per dimension, summed over the batch, and the number of pairs."""
    cost = (couples.z - couples.x).square().flatten(1).mean(1).sum()
    return {"cost": cost.item(), "pairs": float(len(couples.x))}
