"""The student's objective: one trainer for every coupling.

Flow matching: Lipman et al. 2023, arXiv 2210.02747. NFM: Berthelot et al. 2026, arXiv 2603.09014.

    z ~ coupling(x),  t ~ time,  x_t = (1 - t) x + t z        minimise || g(x_t, t, c) - (z - x) ||^2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.batches import Couples
from pipeline.configs import Training
from pipeline.couplings import Coupling
from pipeline.examples import Examples, drop_labels
from pipeline.job import Job
from pipeline.paths import interpolate, target_velocity
from pipeline.runtime import derive, generator
from pipeline.times import TimeDistribution
from pipeline.training import Fitted, fit


def train(job: Job, network: nn.Module, examples: Examples, coupling: Coupling, time: TimeDistribution,
          label_drop: float, training: Training, device: torch.device) -> Fitted:
    """Fit `network` to the velocities that `coupling` gives the examples. Resumes as `pipeline.training.fit` does."""
    seed = job.config.seed

    def batch(step: int) -> Couples:
        rows = examples.rows(derive(seed, "student"), step, training.batch)
        draws = generator(seed, "student", step)
        x, labels = examples.pixels(rows), examples.classes(rows)
        z = coupling.pair(x, labels, rows, draws)
        return Couples(x, z, time.sample(len(rows), draws), drop_labels(labels, label_drop, draws))

    return fit(job, network, batch, velocity_error, training, device, measure=transport_cost)


def velocity_error(network: nn.Module, couples: Couples) -> Tensor:
    """Mean squared error of the velocity, over batch and dimensions: a scalar."""
    x_t = interpolate(couples.x, couples.z, couples.t)
    velocity = network(x_t, couples.t, couples.labels)
    return (velocity - target_velocity(couples.x, couples.z)).float().square().mean()


def transport_cost(couples: Couples) -> dict[str, float]:
    """Squared distance of z and x per dimension, summed over the batch, and the number of pairs."""
    cost = target_velocity(couples.x, couples.z).square().flatten(1).mean(1).sum()
    return {"cost": cost.item(), "pairs": float(len(couples.x))}
