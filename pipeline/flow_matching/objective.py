"""The student's objective: one for every coupling and every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.data.batches import FlowBatch
from pipeline.flow_matching.losses import SQUARED, Loss
from pipeline.flow_matching.mean_flow import MeanFlow
from pipeline.flow_matching.paths import LINEAR, GaussianPath, network_input, network_target
from pipeline.recipe import sections

#: (network, batch) -> the mean loss, a scalar; or that and raw errors, see `pipeline.training.fit`.
Objective = Callable[[nn.Module, FlowBatch], Tensor | tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class FlowMatching:
    """The loss of the velocity in the network's units, mean over the batch.

        x_t = a(t) x + s(t) z        minimise || g(x_t, t, c) - (a'(t) x + s'(t) z) ||^2

    Conditional flow matching, Lipman et al. 2023 (arXiv 2210.02747, eq. 9); on the straight path, a = 1 - t and s = t,
    the target is z - x, as in NFM (Berthelot et al. 2026, arXiv 2603.09014). On diffusion paths network and target are
    preconditioned, see `paths._network`. `loss` may replace the squared error.
    """

    path: GaussianPath = LINEAR
    loss: Loss = SQUARED

    def __call__(self, network: nn.Module, batch: FlowBatch) -> Tensor:
        x_t = self.path.interpolate(batch.x, batch.z, batch.t)
        condition = {} if batch.condition is None else {"condition": batch.condition}
        answer = network(network_input(self.path, x_t, batch.t), batch.t, batch.labels, **condition)
        return self.loss(answer, network_target(self.path, batch.x, batch.z, batch.t), x_t, batch.t)


def objective_of_config(config: sections.Objective, path: GaussianPath) -> FlowMatching | MeanFlow:
    """The objective of a recipe's section, whose rules say that average velocities are of the linear path."""
    if isinstance(config, sections.MeanFlow):
        return MeanFlow(config.power, config.epsilon, config.improved, config.guidance)
    return FlowMatching(path)


def transport_cost(batch: FlowBatch) -> dict[str, float]:
    """Squared distance of z and x per dimension, summed over the batch, and the number of pairs."""
    cost = (batch.z - batch.x).square().flatten(1).mean(1).sum()
    return {"cost": cost.item(), "pairs": float(len(batch.x))}
